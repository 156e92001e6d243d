"""How far probabilities are from what happens: Brier score, calibration error, bias.

Each takes weights of the images, so that patients can be drawn (:mod:`promptray.calibrate.bootstrap`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.ranking import once

Floats = NDArray[np.float64]

BINS = 10
_LEAST_IN_BIN = 20


def equal_bins(probabilities: Floats) -> NDArray[np.int64]:
    """Return the bin of each image: up to ten bins of about equally many, at least 20 in each if there are.

    Equal numbers rather than equal widths: the bins of equal width hold few images where a finding is rare.
    Images of one probability share a bin.
    """
    count = max(1, min(BINS, len(probabilities) // _LEAST_IN_BIN))
    borders = np.quantile(probabilities, np.arange(1, count) / count)
    numbers = np.searchsorted(borders, probabilities, side="right")
    return np.unique(numbers, return_inverse=True)[1].reshape(-1)


def calibration_error(
    probabilities: Floats,
    truth: NDArray[np.bool_],
    bins: NDArray[np.int64],
    weights: NDArray[np.floating] | None = None,
) -> Floats:
    """Return the expected calibration error of each draw.

    The mean over bins of the distance between mean probability and share of positives, weighted by images
    (Naeini et al., AAAI 2015). It is above 0 for perfect probabilities as well, by chance:
    :func:`error_by_chance` says how much.

    Parameters
    ----------
    probabilities : ndarray of float64, shape (n,)
    truth : ndarray of bool, shape (n,)
    bins : ndarray of int, shape (n,)
        From :func:`equal_bins`.
    weights : ndarray of float, shape (n, d), optional

    Returns
    -------
    ndarray of float64, shape (d,)
    """
    weights = once(len(truth)) if weights is None else weights
    gaps = weights * (probabilities - truth)[:, None]
    member = np.equal.outer(np.arange(bins.max() + 1), bins).astype(np.float64)
    error: Floats = np.abs(member @ gaps).sum(0) / weights.sum(0, dtype=np.float64)
    return error


def brier_score(
    probabilities: Floats, truth: NDArray[np.bool_], weights: NDArray[np.floating] | None = None
) -> Floats:
    """Return the mean squared distance of probability and outcome of each draw (Brier, 1950), shape (d,)."""
    return _mean((probabilities - truth) ** 2, weights)


def bias(
    probabilities: Floats, truth: NDArray[np.bool_], weights: NDArray[np.floating] | None = None
) -> Floats:
    """Return mean probability less share of positives of each draw, shape (d,)."""
    return _mean(probabilities - truth, weights)


def error_by_chance(
    probabilities: Floats, bins: NDArray[np.int64], *, draws: int = 200, seed: int = 0
) -> float:
    """Return the mean calibration error if the probabilities were true: outcomes drawn from them, seeded."""
    rng = np.random.default_rng(seed)
    errors = [
        calibration_error(probabilities, rng.random(len(probabilities)) < probabilities, bins)[0]
        for _ in range(draws)
    ]
    return float(np.mean(errors))


def _mean(values: Floats, weights: NDArray[np.floating] | None) -> Floats:
    weights = once(len(values)) if weights is None else weights
    mean: Floats = values @ weights.astype(np.float64) / weights.sum(0, dtype=np.float64)
    return mean
