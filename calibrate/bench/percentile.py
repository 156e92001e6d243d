"""Which percentiles a number of queries supports, and the honest estimate of each.

The rule is MLPerf LoadGen's early stopping (its ``early_stopping.cc`` and ``results.cc``; confidence 99 %,
tolerance 0). Of n queries, t may be slower than a bound while the bound still holds for the percentile p: the
chance that a system whose true share within the bound is just p has t or fewer slower ones,
P(Binomial(n, 1 - p) <= t), must be below 1 %. The estimate is the t-th slowest query, of the largest such t.
There is none where not even t = 1 passes: 64 queries are the fewest for the 90th percentile, 662 for the
99th.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from promptray.calibrate.rate import regularised_beta

CONFIDENCE = 0.99
#: What is printed of each scenario, as far as its queries support it.
LADDER = (50.0, 90.0, 95.0, 97.0, 99.0, 99.9)
_MOST = 2**40


def at_most(events: int, trials: int, chance: float) -> float:
    """Return P(Binomial(trials, chance) <= events)."""
    if events < 0:
        return 0.0
    return 1.0 if events >= trials else regularised_beta(1 - chance, trials - events, events + 1)


def passes(slower: int, queries: int, percentile: float) -> bool:
    """Tell whether so many queries beyond a bound still show that the bound holds for a percentile."""
    return at_most(slower, queries, 1 - percentile / 100) < 1 - CONFIDENCE


def fewest_queries(percentile: float, slower: int = 1) -> int:
    """Return the fewest queries of which `slower` may lie beyond a bound that holds for a percentile.

    Examples
    --------
    >>> fewest_queries(90), fewest_queries(99)
    (64, 662)
    """
    if not 0 < percentile < 100:
        raise ValueError("a percentile lies between 0 and 100")
    return _first(lambda queries: passes(slower, queries, percentile), slower + 1)


def slower_allowed(queries: int, percentile: float) -> int:
    """Return the largest t that passes; 0 where the queries are too few."""
    if queries < fewest_queries(percentile):
        return 0
    return _first(lambda slower: not passes(slower, queries, percentile), 1) - 1


def early_stopping(ordered: Sequence[float], percentile: float) -> float | None:
    """Return LoadGen's estimate of a percentile from latencies in rising order; None for too few."""
    slower = slower_allowed(len(ordered), percentile)
    return ordered[len(ordered) - slower] if slower else None


def plain(ordered: Sequence[float], percentile: float) -> float:
    """Return the plain percentile of latencies in rising order, as LoadGen counts it."""
    return ordered[min(int(len(ordered) * percentile / 100), len(ordered) - 1)]


def median_interval(ordered: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Return the interval of the median by order statistics, of any distribution; None for too few.

    The k-th smallest and the k-th greatest value, with the largest k for which both miss the median with a
    chance of at most 1 - `confidence` together: 2 P(Binomial(n, 1/2) < k).

    Parameters
    ----------
    ordered : sequence of float
        In rising order; eight are the fewest for 99 %.
    confidence : float, optional
        Coverage, at least.
    """
    count = len(ordered)
    if not count or 2 * at_most(0, count, 0.5) > 1 - confidence:
        return None
    rank = _first(lambda k: 2 * at_most(k - 1, count, 0.5) > 1 - confidence, 1) - 1
    return ordered[rank - 1], ordered[count - rank]


def _first(holds: Callable[[int], bool], start: int) -> int:
    """Return the first whole number from `start` on for which something holds that then goes on to hold."""
    step = 1
    while not holds(start + step - 1):
        step *= 2
        if step > _MOST:
            raise ValueError("no number of queries supports this percentile")
    low, high = start, start + step - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
