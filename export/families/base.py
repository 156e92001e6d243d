"""What a family must say of itself, so that one exporter, one bundle and one runtime serve them all.

A family is one file that turns a published checkpoint into a :class:`LoadedModel`: an image side that every
image goes through once, heads that score its features against banks of findings, and a text side where one of
the heads scores wordings. Each is a torch module with the names and dimensions of its inputs and outputs,
beside the rules that the runtime applies before it (preprocessing, text cleaning); each head has the
original's own arithmetic to compare against.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.bundle.image_rules import Preprocessing
from promptray.runtime.bundle.manifest import MapFacts, Relation, TensorFacts, TextRule
from promptray.runtime.text import EncodedFinding

if TYPE_CHECKING:  # a build that finds everything in its cache never waits for torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class Side:
    """One graph to be: a torch module with named inputs and outputs.

    Attributes
    ----------
    module : nn.Module
        In evaluation mode; called with one positional tensor for each of `inputs`, returns a tuple.
    inputs, outputs : sequence of TensorFacts
        Symbolic dimensions (``batch``, ``prompts``, ``rows``, ``tokens`` ...) are dynamic in the graph.
    """

    module: nn.Module
    inputs: Sequence[TensorFacts]
    outputs: Sequence[TensorFacts]


@runtime_checkable
class Divided(Protocol):
    """An image side's module that says where its tower ends, so that another tower can take its place.

    ``forward(pixels)`` is ``finish(*encode(pixels))``. A module without the two is all tower.
    """

    def encode(self, pixels: Tensor, /) -> tuple[Tensor, ...]:
        """Return what the tower gives: vectors of the image (B, W), or of its positions (B, [1 +] P, W).

        P positions are the rows and columns of the head's map, and one before them is of the whole image.
        """
        ...

    def finish(self, *encoded: Tensor) -> tuple[Tensor, ...]:
        """Return the side's outputs, of what `encode` gives."""
        ...


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
class LoadedText:
    """The text side: one wording to one entry of a bank.

    Attributes
    ----------
    rule : TextRule
        Names the head whose findings have wordings.
    tokenizer : bytes
        ``tokenizer.json`` for the runtime.
    side : Side
        Its outputs are the tensors of that head's bank, without the dimension ``prompts``.
    """

    rule: TextRule
    tokenizer: bytes
    side: Side


@dataclass(frozen=True)
class LoadedHead:
    """One way to score an image.

    Attributes
    ----------
    name : str
        In the bundle, in recipes and results: small letters, digits, ``-`` and ``_``.
    set : {'free', 'fixed'}
        Whether findings may be added and removed, or form one unit. Only a head with wordings is free.
    side : Side
        Takes tensors of the image side and of `bank`, by name; gives ``logits`` (batch, prompts) and, with a
        `map`, ``maps`` (batch, prompts, grid rows, grid columns).
    bank : sequence of TensorFacts
        What it takes of every finding, ``prompts`` first: from the text side, or from `classes`.
    relations : sequence of str
        How findings may hang together; the recipe chooses, the first is the default.
    activation : {'none', 'sigmoid'}
        Of independent findings; alternatives and pairs always become a softmax.
    identity : dict of str to str
        What of the model an entry of the bank depends on, as hashes and rule names.
    reference : callable
        ``reference(pixels, findings)`` scores float32 (B, C, H, W) by the original's own arithmetic. It
        may be slow, so a third argument is called with the number of images done.
    score_tolerance : float
        Largest absolute difference of a score that a faithful fp32 export may show.
    map : MapFacts or None
        With its own tolerance.
    classes : mapping of str to (mapping of str to array), or None
        Bank tensors of each class, under the name the weights have for it; None for a head with wordings.
    ensemble : {'none', 'mean-unit'}
        How several wordings of a finding become one entry of the bank (see `promptray.runtime.ensemble`).
    row_buckets : sequence of int
        Buckets of the bank's ``rows`` dimension; empty when it has none.
    row_bias : str or None
        The bank tensor that is added to attention logits.
    """

    name: str
    set: Literal["free", "fixed"]
    side: Side
    bank: Sequence[TensorFacts]
    relations: Sequence[Relation]
    activation: Literal["none", "sigmoid"]
    identity: Mapping[str, str]
    reference: Scoring
    score_tolerance: float
    map: MapFacts | None = None
    classes: Mapping[str, Mapping[str, NDArray[np.float32]]] | None = None
    ensemble: Literal["none", "mean-unit"] = "none"
    row_buckets: Sequence[int] = ()
    row_bias: str | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint, loaded and described.

    Attributes
    ----------
    family : str
    preprocessing : Preprocessing
    image : Side
        Its outputs are all that the heads take of an image.
    text : LoadedText or None
        None for a model without text.
    heads : sequence of LoadedHead
        At least one; a recipe's findings are of the first unless they say otherwise.
    notes : sequence of str
        What the loader assumed; stored in the bundle's parity report.
    sources : sequence of str or None
        Names of the files beside the checkpoint that it was read from; None for all of the family's.
    """

    family: str
    preprocessing: Preprocessing
    image: Side
    text: LoadedText | None
    heads: Sequence[LoadedHead]
    notes: Sequence[str] = ()
    sources: Sequence[str] | None = None

    def __post_init__(self) -> None:
        worded = [head.name for head in self.heads if head.classes is None]
        if worded != ([] if self.text is None else [self.text.rule.head]):
            raise TypeError("a head has classes, or is the one that the text side is of")
        if any(head.set == "free" and head.classes is not None for head in self.heads):
            raise TypeError("classes form one unit: only the head that the text side is of is free")

    def head(self, name: str) -> LoadedHead:
        """Return a head by name; KeyError where there is none."""
        return {head.name: head for head in self.heads}[name]


def left_out_note(head: str, why: str) -> str:
    """Return the note of a head that this checkpoint has not; a recipe that names the head gets it, too."""
    return f"the head {head} is left out: {why}"


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
        (checkpoint, text model folder) -> other files that the model may be read from; some may not exist.
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


def tensor(name: str, *dims: int | str, dtype: Literal["float32", "int64"] = "float32") -> TensorFacts:
    """Return the facts of a tensor."""
    return TensorFacts(name=name, dtype=dtype, dims=list(dims))


#: What text sides take of one wording; a side has those of the two that it needs.
INPUT_IDS = tensor("input_ids", 1, "tokens", dtype="int64")
WORD_MATRIX = tensor("word_matrix", 1, "words", "tokens")


def answers(grid: Sequence[int] = ()) -> list[TensorFacts]:
    """Return the outputs of a head: logits and, where it has a grid, maps."""
    logits = tensor("logits", "batch", "prompts")
    return [logits, tensor("maps", "batch", "prompts", *grid)] if grid else [logits]


def entry_of(bank: Sequence[TensorFacts]) -> list[TensorFacts]:
    """Return what a text side gives of one wording: the tensors of the bank without ``prompts``."""
    return [TensorFacts(name=each.name, dtype=each.dtype, dims=each.dims[1:]) for each in bank]


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Return a hash of tensors that depends on their names, dtypes, shapes and bytes only."""
    import torch

    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().contiguous()
        digest.update(f"{key}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
