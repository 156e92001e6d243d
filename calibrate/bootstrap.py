"""Bootstrap intervals that draw patients, not images.

Images of one patient resemble each other. An interval that draws images as if they were independent is too
narrow, so whole patients are drawn with replacement, with all their images (Efron and Tibshirani, An
Introduction to the Bootstrap, 1993, chapter 8: draw the unit that is independent).

A draw is a column of weights: how many times each image is in it. Statistics that take weights are computed
for many draws at once, and two statistics of the same draws may be subtracted (a paired comparison).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

_DRAWS_AT_ONCE = 256
_CELLS_AT_ONCE = 2**22  # of a block of weights: 16 MB, and a few times that while it is used


def patient_draws(patients: ArrayLike, *, draws: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """Draw patients with replacement, and yield the weights of the images block by block.

    Parameters
    ----------
    patients : array_like, shape (n,)
        Which patient each image is of.
    draws : int
        Number of draws over all blocks.
    seed : int
        The same seed gives the same draws.

    Yields
    ------
    ndarray of float32, shape (n, d)
        How many times each image is in each of d draws: whole numbers, at most the number of patients. The
        d of all blocks add up to `draws`.
    """
    number = np.unique(np.asarray(patients), return_inverse=True)[1].reshape(-1)
    if not len(number):
        return
    count = int(number.max()) + 1
    at_once = max(1, min(_DRAWS_AT_ONCE, _CELLS_AT_ONCE // len(number)))
    rng = np.random.default_rng(seed)
    for start in range(0, draws, at_once):
        drawn = rng.integers(count, size=(min(at_once, draws - start), count))
        times = np.apply_along_axis(np.bincount, 1, drawn, minlength=count)
        yield times.astype(np.float32).T[number]


def mean_draws(of_findings: Sequence[Sequence[NDArray[np.float64]]]) -> NDArray[np.float64]:
    """Return the mean over findings in each draw, shape (draws,).

    Parameters
    ----------
    of_findings : sequence of sequence of ndarray
        For each finding, the blocks of its statistic's draws. A draw that does not define a finding (NaN:
        it holds none of its positives, say) leaves it out of that draw's mean.
    """
    values = np.array([np.concatenate([np.empty(0), *blocks]) for blocks in of_findings])
    count = (~np.isnan(values)).sum(0)
    return np.divide(np.nansum(values, axis=0), count, out=np.full(count.shape, np.nan), where=count > 0)


def percentile_interval(
    values: NDArray[np.float64], confidence: float = 0.95
) -> tuple[float | None, float | None, int]:
    """Return (low, high, number of draws) of a statistic's draws; NaN marks a draw that does not define it.

    Parameters
    ----------
    values : ndarray of float64, shape (d,)
        The statistic of each draw.
    confidence : float
        Share of the draws inside the interval.

    Returns
    -------
    low, high : float or None
        None where no draw defines the statistic.
    draws : int
        Draws that do.
    """
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None, None, 0
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high), len(defined)
