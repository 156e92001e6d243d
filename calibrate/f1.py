"""F1 at a threshold, and the threshold at which it is highest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.ranking import Ranking, once


@dataclass(frozen=True)
class F1:
    """F1 with what it is made of; precision is 0 where nothing was flagged."""

    value: float
    precision: float
    recall: float


def f1_of_flags(truth: NDArray[np.bool_], flags: NDArray[np.bool_]) -> F1:
    """Return the F1 of decisions, both of shape (n,); 0 where no positive was found."""
    found, flagged, positives = int((truth & flags).sum()), int(flags.sum()), int(truth.sum())
    return _f1(found, flagged, positives)


def best_f1(truth: NDArray[np.bool_], ranking: Ranking) -> tuple[F1, float]:
    """Return the highest F1 over all thresholds, and the threshold: flag what scores at least as much.

    The threshold is chosen on the very images that it is measured on, so the F1 is optimistic: it says what
    a perfect choice would give, not what new images will. Of equal ones the highest threshold is taken.

    Raises
    ------
    ValueError
        If there is no positive.
    """
    if not truth.any():
        raise ValueError("the best F1 needs a positive")
    found = np.cumsum(ranking.totals(once(len(truth)) * truth[:, None])[::-1, 0])
    flagged = np.cumsum(ranking.totals(once(len(truth)))[::-1, 0])
    best = int(np.argmax(2 * found / (flagged + truth.sum())))
    threshold = float(ranking.levels[::-1][best])
    return _f1(int(found[best]), int(flagged[best]), int(truth.sum())), threshold


def _f1(found: int, flagged: int, positives: int) -> F1:
    return F1(
        value=2 * found / (flagged + positives) if flagged + positives else 0.0,
        precision=found / flagged if flagged else 0.0,
        recall=found / positives if positives else 0.0,
    )
