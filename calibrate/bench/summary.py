"""From the queries of a scenario to what the report says of them."""

from __future__ import annotations

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


def latency(seconds: Sequence[float], wanted: Sequence[float] = ()) -> Latency:
    """Return what the latencies of at least one query say.

    Parameters
    ----------
    seconds : sequence of float
        Of each query, in the order of asking.
    wanted : sequence of float
        Percentiles to print beside the usual ones.
    """
    each = [round(1000 * value, 4) for value in seconds]
    ordered = sorted(each)
    ladder = sorted({*LADDER, *wanted})
    rows = []
    for share in ladder:
        estimate = early_stopping(ordered, share)
        if estimate is not None:
            discarded = slower_allowed(len(ordered), share) - 1
            at = plain(ordered, share)
            rows.append(
                Percentile(percentile=share, plain_ms=at, early_stopping_ms=estimate, discarded=discarded)
            )
    higher = next((share for share in ladder if fewest_queries(share) > len(each)), None)
    return Latency(
        queries=len(each), mean=statistics.fmean(each), least=ordered[0], greatest=ordered[-1],
        median=median(each), percentiles=rows, next_percentile=higher,
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
