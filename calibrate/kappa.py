"""Agreement on a scale of ordered steps: Cohen's kappa with quadratic weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def confusion(
    truth: NDArray[np.integer],
    predicted: NDArray[np.integer],
    steps: int,
    weights: NDArray[np.floating],
) -> NDArray[np.float64]:
    """Count true against predicted steps.

    Parameters
    ----------
    truth, predicted : ndarray of int, shape (n,)
        Steps, 0 to ``steps - 1``.
    steps : int
        Length of the scale.
    weights : ndarray of float, shape (n, d)
        How often each image is in each draw.

    Returns
    -------
    ndarray of float64, shape (steps, steps, d)
        Row: true step; column: predicted one.
    """
    counts = np.zeros((steps * steps, weights.shape[1]))
    np.add.at(counts, truth * steps + predicted, weights)
    return counts.reshape(steps, steps, -1)


def quadratic_weighted_kappa(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the kappa of each table of counts (steps, steps, d), shape (d,).

    1 is perfect agreement, 0 what chance gives with the same marginals; a disagreement weighs the square of
    its steps (Cohen, Psychological Bulletin 1968). NaN where truth and prediction are one and the same step
    throughout, so that chance alone would agree.
    """
    steps = len(counts)
    distance = np.subtract.outer(np.arange(steps), np.arange(steps))[:, :, None] ** 2.0
    total = counts.sum((0, 1))
    by_chance = counts.sum(1)[:, None] * counts.sum(0)[None]
    seen, expected = (distance * counts).sum((0, 1)) * total, (distance * by_chance).sum((0, 1))
    return np.where(expected > 0, 1 - seen / np.where(expected > 0, expected, 1), np.nan)
