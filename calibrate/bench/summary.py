"""From the queries of a scenario to what the report says of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from promptray.calibrate.bench.percentile import (
    LADDER,
    early_stopping,
    fewest_queries,
    median_interval,
    plain,
    slower_allowed,
)
from promptray.calibrate.bench.report import Latency, Median, Percentile, Stage

#: What the clock around a call saw and no stage of the result did.
REST = "rest"


def median(values: Sequence[float]) -> Median:
    """Return the median of at least one value, with its interval."""
    low, high = median_interval(sorted(values)) or (None, None)
    return Median(value=statistics.median(values), low=low, high=high, samples=len(values))


def slowest_last(latencies: Sequence[float], unserved: int) -> list[float]:
    """Return latencies in rising order, and after them an infinite one of each query that was not served."""
    return sorted(latencies) + [math.inf] * unserved


def latency(seconds: Sequence[float], wanted: Sequence[float] = (), unserved: int = 0) -> Latency:
    """Return what the latencies of at least one query say.

    Parameters
    ----------
    seconds : sequence of float
        Of each query that was served, in the order of asking.
    wanted : sequence of float
        Percentiles to print beside the usual ones.
    unserved : int
        Queries beside them whose latency is not known, and slower than any: no percentile leaves them out.
    """
    each = [round(1000 * value, 4) for value in seconds]
    ordered = slowest_last(each, unserved)
    middle = median(ordered)
    ladder = sorted({*LADDER, *wanted})
    rows = []
    for share in ladder:
        estimate = early_stopping(ordered, share)
        if estimate is not None and math.isfinite(estimate):
            discarded = slower_allowed(len(ordered), share) - 1
            at = plain(ordered, share)
            rows.append(
                Percentile(percentile=share, plain_ms=at, early_stopping_ms=estimate, discarded=discarded)
            )
    higher = next((share for share in ladder if fewest_queries(share) > len(ordered)), None)
    known = math.isfinite(middle.value) and (middle.high is None or math.isfinite(middle.high))
    return Latency(
        queries=len(ordered), unserved=unserved, mean=None if unserved else statistics.fmean(each),
        least=ordered[0], greatest=None if unserved else ordered[-1],
        median=middle if known else None, percentiles=rows, next_percentile=higher,
        next_queries=None if higher is None else fewest_queries(higher), each=each,
    )  # fmt: skip


def stages(seconds: Sequence[float], found: Sequence[Mapping[str, float]]) -> list[Stage]:
    """Return the stages of queries, in the order in which they come, with what no stage accounts for.

    Parameters
    ----------
    seconds : sequence of float
        Of each query, by the clock around it.
    found : sequence of mapping
        Milliseconds of each query's stages.
    """
    names = list(dict.fromkeys(name for each in found for name in each))
    whole = [1000 * value for value in seconds]
    columns = {name: [each.get(name, 0.0) for each in found] for name in names}
    columns[REST] = [total - sum(each.values()) for total, each in zip(whole, found, strict=True)]
    mean = statistics.fmean(whole)
    return [
        Stage(name=name, mean=statistics.fmean(values), median=median(values),
              share=statistics.fmean(values) / mean if mean else 0.0)
        for name, values in columns.items()
    ]  # fmt: skip
