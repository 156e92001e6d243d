"""Scores of network input that the caller made itself: no file, no door, no document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.active_set import ActiveSet
from promptray.runtime.backends import BackendFacts
from promptray.runtime.bound_heads import HeadScores


@dataclass(frozen=True, eq=False)
class HeadPixelScores:
    """Scores of one head.

    Attributes
    ----------
    head : str
    keys : tuple of str
        Findings, in the order of the scores.
    logits : float32 array, (images, findings)
    maps : float32 array, (images, findings, grid rows, grid columns), or None
    """

    head: str
    keys: tuple[str, ...]
    logits: NDArray[np.float32]
    maps: NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class PixelScores:
    """Scores of B images.

    Attributes
    ----------
    backend : BackendFacts
        What ran.
    heads : tuple of HeadPixelScores
        Of the heads that have findings.
    timing : dict of str to float
        Milliseconds of each stage.
    """

    backend: BackendFacts
    heads: tuple[HeadPixelScores, ...]
    timing: Mapping[str, float]


def pixel_scores(
    backend: BackendFacts, state: ActiveSet, scores: Sequence[HeadScores], timing: Mapping[str, float]
) -> PixelScores:
    """Name the scores of the heads that have findings."""
    scored = [each for each in state.heads if each.active]
    named = [
        HeadPixelScores(each.head.name, each.bank.keys, logits, maps)
        for each, (logits, maps) in zip(scored, scores, strict=True)
    ]
    return PixelScores(backend, tuple(named), timing)
