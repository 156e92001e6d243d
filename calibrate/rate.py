"""A share of events with its Clopper-Pearson interval, patients counting as the sample.

The bootstrap of a share of 0 is the interval from 0 to 0, which claims what no one has seen. Clopper and
Pearson (Biometrika 1934) give the honest upper end. Images of one patient may go wrong together, so in the
worst case n images of m patients say no more than m images: m is the sample size here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def rate_interval(
    events: int, decisions: int, patients: int, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Return the share of events among decisions with its interval: (value, low, high).

    Parameters
    ----------
    events, decisions : int
        ``0 <= events <= decisions``, at least one decision.
    patients : int
        Patients whose images were decided on, 1 to `decisions`; the sample size of the interval.
    confidence : float
        Coverage, at least.
    """
    if not 0 <= events <= decisions or not 1 <= patients <= decisions:
        raise ValueError("a rate needs 0 <= events <= decisions and 1 <= patients <= decisions")
    share, tail = events / decisions, (1 - confidence) / 2
    hits = share * patients
    low = high = share
    low = 0.0 if events == 0 else _root(lambda p: regularised_beta(p, hits, patients - hits + 1), tail)
    high = (
        1.0
        if events == decisions
        else _root(lambda p: regularised_beta(p, hits + 1, patients - hits), 1 - tail)
    )
    return share, low, high


def independent_decisions(patients: NDArray[np.int64]) -> int:
    """Return how many independent decisions images of these patients are worth in the worst case.

    In the worst case all images of a patient go wrong together. Then it is Kish's effective sample size
    (Survey Sampling, 1965), the squared sum of the patients' numbers of images over the sum of their
    squares: the number of patients where all have equally many, and less where one has most of them.
    """
    sizes = np.bincount(patients).astype(np.float64)
    return int(np.floor(sizes.sum() ** 2 / (sizes**2).sum() + 1e-9))


def _root(rising: Callable[[float], float], wanted: float) -> float:
    """Return where a rising function on 0..1 takes a value, by halving."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < wanted else (low, middle)
    return (low + high) / 2


def regularised_beta(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22).

    Parameters
    ----------
    x : float
        0 to 1; what lies outside counts as the end.
    a, b : float
        Above 0.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges quickly on the other side only
        return 1 - regularised_beta(1 - x, b, a)
    front = math.exp(
        math.lgamma(a + b)
        - math.lgamma(a)
        - math.lgamma(b)
        + a * math.log(x)
        + b * math.log1p(-x)
        - math.log(a)
    )
    return front / _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    """Return 1 + d1/(1 + d2/(1 + ...)), by Lentz's method."""
    tiny = 1e-300
    value, c, d = 1.0, 1.0, 0.0
    for step in range(1, 100_000):
        m = step // 2
        if step % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / ((1 + term * d) or tiny)
        c = (1 + term / c) or tiny
        value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value
