"""Heads with their banks resident: what is run, and how the outputs of its batches become scores."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.backends import BoundGraph, Chain, Graph, Pending, require_leading
from promptray.runtime.backends.finite import require_finite
from promptray.runtime.deadline import Deadline
from promptray.runtime.errors import PromptError
from promptray.runtime.prompts import BankBatch

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class BoundBatch:
    """Prompts that go through the head in one call.

    Attributes
    ----------
    positions : int array, (n,)
        Place of each in the bank.
    size : int
        Prompts of the call, padding included.
    graph : BoundGraph
    """

    positions: NDArray[np.intp]
    size: int
    graph: BoundGraph


@dataclass(frozen=True, eq=False)
class BoundHead:
    """A head with its bank resident: one bound graph for each batch of prompts, none without prompts."""

    batches: tuple[BoundBatch, ...]

    @classmethod
    def of(cls, graph: Graph, batches: Iterable[BankBatch]) -> BoundHead:
        """Make batches of a bank resident in a head's graph."""
        return cls(tuple(BoundBatch(each.positions, each.size, graph.bind(each.tensors)) for each in batches))

    @property
    def prompts(self) -> int:
        """How many prompts the bank holds."""
        return sum(len(batch.positions) for batch in self.batches)

    def run(self, features: Mapping[str, Array]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Score image features against every prompt of the bank, which holds at least one.

        On a backend that runs one graph after the other; :meth:`Graphs.chain` is for all of them.

        Parameters
        ----------
        features : dict of str to array
            Outputs of the image graph for B images.

        Returns, Raises
        ---------------
        As :meth:`collect`; also ``score.not-finite``, which chains see to themselves.
        """
        images = len(next(iter(features.values())))
        found = [batch.graph.run(features) for batch in self.batches]
        for outputs in found:
            require_finite(outputs, "head")
        return self.collect(found, images)

    def collect(
        self, found: Iterable[Mapping[str, Array]], images: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Put the outputs of all batches together, without padding.

        Parameters
        ----------
        found : iterable of dict of str to array
            Outputs of the head's graph for each batch, all numbers.
        images : int
            How many were scored.

        Returns
        -------
        logits : float32 (B, prompts)
            Contiguous, as maps are: they are written to files as they lie.
        maps : float32 (B, prompts, grid rows, grid columns), or None where the head gives none

        Raises
        ------
        ScoringError
            ``backend.failed``.
        """
        logits: NDArray[np.float32] | None = None
        maps: NDArray[np.float32] | None = None
        for batch, outputs in zip(self.batches, found, strict=True):
            positions = batch.positions
            # One column or row would be spread over all findings or images, and look like scores of each.
            require_leading(outputs, (images, batch.size), "head")
            kept = {name: values[:, : len(positions)] for name, values in outputs.items()}
            if len(self.batches) == 1:  # it holds the whole bank, in its order
                only = {name: np.ascontiguousarray(values, np.float32) for name, values in kept.items()}
                return only["logits"], only.get("maps")
            if logits is None:
                logits = np.empty((len(kept["logits"]), self.prompts), np.float32)
            logits[:, positions] = kept["logits"]
            if "maps" in kept:
                if maps is None:
                    maps = np.empty((*logits.shape, *kept["maps"].shape[2:]), np.float32)
                maps[:, positions] = kept["maps"]
        if logits is None:
            raise PromptError(
                "prompt.unknown",
                "there is no finding to score",
                cure="add one: scorer.prompts.add(key, prompt), or `promptray prompts BUNDLE add`",
            )
        return logits, maps


#: Scores of one head: logits float32 (B, prompts), and maps (B, prompts, grid rows, grid columns) or None.
HeadScores = tuple[NDArray[np.float32], NDArray[np.float32] | None]


class PendingScores:
    """Images that were submitted to a chain."""

    def __init__(self, pending: Pending, heads: Sequence[BoundHead]) -> None:
        self._pending, self._heads = pending, heads

    def done(self) -> bool:
        """Tell whether the scores are there; never waits."""
        return self._pending.done()

    def result(self) -> tuple[list[HeadScores], Mapping[str, float]]:
        """Wait, and return the scores of each head, and the milliseconds of each stage.

        Raises
        ------
        ScoringError
            ``score.not-finite``, ``score.deadline``, ``score.cancelled``, ``backend.*``.
        """
        outputs = self._pending.result()
        start = time.perf_counter()
        each = iter(outputs.heads)
        images = self._pending.images
        found = [head.collect((next(each) for _ in head.batches), images) for head in self._heads]
        return found, {**outputs.timing, "post": 1000 * (time.perf_counter() - start)}


class BoundChain:
    """The image side and heads with their banks, as one call."""

    def __init__(self, chain: Chain, heads: Sequence[BoundHead]) -> None:
        self._chain, self._heads = chain, tuple(heads)

    def submit(self, pixels: Any, limit: Deadline) -> PendingScores:
        """Begin to score pixels (see :meth:`promptray.runtime.backends.Chain.submit`)."""
        return PendingScores(self._chain.submit(pixels, limit), self._heads)

    def run(self, pixels: Any) -> list[HeadScores]:
        """Score pixels float32 (B, channels, height, width) with every head."""
        return self.submit(pixels, Deadline(None, None)).result()[0]
