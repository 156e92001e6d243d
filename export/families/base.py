"""What a family must say of itself, so that one exporter, one bundle and one runtime serve them all.

A family is one file that turns a published checkpoint into a :class:`LoadedModel`: up to three torch modules
(image side, text side, head) with the names and dimensions of their inputs and outputs, the rules the runtime
applies before them (preprocessing, text cleaning), and the original's own arithmetic to compare against.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.bundle.manifest import Head, Preprocessing, Relation, TensorFacts, TextRule
from promptray.runtime.text import EncodedFinding

if TYPE_CHECKING:  # a build that finds everything in its cache never waits for torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class Side:
    """One graph to be: a torch module with named inputs and outputs.

    Attributes
    ----------
    role : {'image', 'text', 'head'}
    module : nn.Module
        In evaluation mode; called with one positional tensor for each of `inputs`, returns a tuple.
    inputs, outputs : sequence of TensorFacts
        Symbolic dimensions (``batch``, ``prompts``, ``rows``, ``tokens`` ...) are dynamic in the graph.
    """

    role: Literal["image", "text", "head"]
    module: nn.Module
    inputs: Sequence[TensorFacts]
    outputs: Sequence[TensorFacts]


@dataclass(frozen=True)
class Reference:
    """Scores of the original arithmetic, float32.

    Attributes
    ----------
    logits : array, (images, findings)
    maps : array, (images, findings, grid rows, grid columns), or None
    """

    logits: NDArray[np.float32]
    maps: NDArray[np.float32] | None


class Scoring(Protocol):
    """The original's own arithmetic, plainly."""

    def __call__(
        self, pixels: Tensor, findings: Sequence[EncodedFinding], done: Callable[[int], None] = ..., /
    ) -> Reference:
        """Score images float32 (B, C, H, W) against findings; `done` gets the number of images finished."""
        ...


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint, loaded and described.

    Attributes
    ----------
    family : str
    sides : sequence of Side
    preprocessing : Preprocessing
    text : TextRule or None
        None for a model without text.
    tokenizer : bytes or None
        ``tokenizer.json`` for the runtime, with `text`.
    bank : sequence of TensorFacts
        What the head takes of every finding, ``prompts`` first: from the text side, or from `classes`.
    classes : mapping of str to (mapping of str to array), or None
        Bank tensors of each class of a classifier, under the name its weights have for it.
    head : Head
        With the first of `relations`.
    relations : sequence of str
        How findings may hang together; the recipe chooses.
    ensemble : {'none', 'mean-unit'}
        How several wordings of a finding become one entry of the bank (see `promptray.runtime.ensemble`).
    row_buckets : sequence of int
        Buckets of the bank's ``rows`` dimension; empty when it has none.
    row_bias : str or None
        The bank tensor that is added to attention logits.
    identity : dict of str to str
        What of the model a cached prompt depends on, as hashes and rule names.
    reference : callable
        ``reference(pixels, findings)`` scores float32 (B, C, H, W) by the original's own arithmetic. It
        may be slow, so a third argument is called with the number of images done.
    score_tolerance, map_tolerance : float
        Largest absolute difference a faithful fp32 export may show.
    notes : sequence of str
        What the loader assumed; stored in the bundle's parity report.
    """

    family: str
    sides: Sequence[Side]
    preprocessing: Preprocessing
    text: TextRule | None
    tokenizer: bytes | None
    bank: Sequence[TensorFacts]
    head: Head
    relations: Sequence[Relation]
    ensemble: Literal["none", "mean-unit"]
    row_buckets: Sequence[int]
    row_bias: str | None
    identity: Mapping[str, str]
    reference: Scoring
    score_tolerance: float
    map_tolerance: float
    classes: Mapping[str, Mapping[str, NDArray[np.float32]]] | None = None
    notes: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        if (self.text is None) != (self.tokenizer is None) or (self.text is None) != (
            self.classes is not None
        ):
            raise TypeError("a model has a text rule with its tokenizer, or classes")

    def side(self, role: str) -> Side | None:
        """Return the side of a role, or None."""
        return next((side for side in self.sides if side.role == role), None)


@dataclass(frozen=True)
class FamilyFacts:
    """What ``promptray families`` lists; known without importing the family, which needs torch.

    Attributes
    ----------
    name : str
    summary : str
    layout : str
        The checkpoint layout that is read, in one sentence.
    options : dict of str to str
        Options of the recipe's ``model_options`` with their meaning.
    module : str
        Where its ``FAMILY`` is.
    source_files : callable
        (checkpoint, text model folder) -> the other files that the model is read from; some may not exist.
    aliases : tuple of str
        Other names that recipes may use.
    """

    name: str
    summary: str
    layout: str
    options: Mapping[str, str]
    module: str
    source_files: Callable[[Path, Path | None], Sequence[Path]]
    aliases: tuple[str, ...] = ()


def no_files(checkpoint: Path, text_model: Path | None) -> Sequence[Path]:
    """Return nothing: the model is read from its checkpoint alone."""
    return ()


class Family(Protocol):
    """One door to every model: what ``promptray build`` calls."""

    def load(self, checkpoint: Path, text_model: Path | None, options: Mapping[str, object]) -> LoadedModel:
        """Load a published checkpoint.

        Raises
        ------
        BuildError
            ``checkpoint.*`` or ``text-model.*``.
        """
        ...


def bank_of(text_outputs: Sequence[TensorFacts]) -> list[TensorFacts]:
    """Return the bank that a text side fills: its outputs for every finding."""
    return [
        TensorFacts(name=tensor.name, dtype=tensor.dtype, dims=["prompts", *tensor.dims])
        for tensor in text_outputs
    ]


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Return a hash of tensors that depends on their names, dtypes, shapes and bytes only."""
    import torch

    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().contiguous()
        digest.update(f"{key}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
