"""Scores and maps of the golden pictures through one head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Answers:
    """What a model says of the golden pictures through one head.

    Attributes
    ----------
    logits : float32 (G, findings)
    maps : float32 (G, findings, grid rows, grid columns), or None
    """

    logits: NDArray[np.float32]
    maps: NDArray[np.float32] | None

    def errors(self, logits: NDArray[np.float32], maps: NDArray[np.float32] | None) -> tuple[float, float]:
        """Return the largest absolute differences of scores and of maps; NaN where there is a NaN.

        Arrays of another shape than the stored ones are infinitely far off: numpy would stretch them to fit.
        """
        score_error = _difference(logits, self.logits)
        if self.maps is None or maps is None:
            return score_error, 0.0 if self.maps is maps else math.inf
        return score_error, _difference(maps, self.maps)

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Return the answers to all pictures of the parts, one part after the other."""
        maps = [each.maps for each in parts if each.maps is not None]
        return cls(np.concatenate([each.logits for each in parts]), np.concatenate(maps) if maps else None)

    def first(self, pictures: int) -> Answers:
        """Return those of the first pictures."""
        return self.of(range(min(pictures, len(self.logits))))

    def of(self, numbers: Sequence[int]) -> Answers:
        """Return those of some pictures."""
        chosen = list(numbers)
        return Answers(self.logits[chosen], None if self.maps is None else self.maps[chosen])


def spreads_of(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return what scores (images, findings) deviate by over images, standard deviations (findings,)."""
    return np.asarray(logits.astype(np.float64).std(axis=0))


def spread_of(logits: NDArray[np.float32]) -> float:
    """Return the same of all findings together, root mean square."""
    return float(np.sqrt(np.square(spreads_of(logits)).mean()))


def _difference(found: NDArray[np.float32], stored: NDArray[np.float32]) -> float:
    return float(np.abs(found - stored).max(initial=0.0)) if found.shape == stored.shape else math.inf
