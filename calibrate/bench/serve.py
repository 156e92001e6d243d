"""The Server scenario's answer: the highest rate of queries that meets all bounds of the latency."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from promptray.calibrate.bench.percentile import passes
from promptray.calibrate.bench.report import Bound, ServerReport, Trial
from promptray.calibrate.bench.scenarios import Clock, Limit, Load, System, server

_TRIALS = 6


def serve(
    system: System,
    clock: Clock,
    seconds: float,
    seed: int,
    *,
    bounds: Sequence[Bound],
    streams: int,
    rate: float | None,
    alone: float,
) -> tuple[ServerReport, Load]:
    """Run one rate, or search for the highest that meets the bounds.

    The search halves the range between no query and as many as `streams` images could be done at once in the
    time of one alone; it goes up from rates that met the bounds, and down from all others.

    Parameters
    ----------
    system, clock, seconds, seed
        As for :func:`promptray.calibrate.bench.scenarios.server`; the time is shared by all trials.
    bounds : sequence of Bound
        Held together: a rate that breaks one meets none. Empty only with a `rate`: its latencies are
        reported and not judged.
    streams : int
    rate : float or None
        None searches.
    alone : float
        Seconds of one image alone.

    Returns
    -------
    ServerReport
    Load
        Of the highest rate that met the bounds; of the last one where none did.
    """

    def trial(queries_a_second: float, share: float) -> tuple[Trial, Load]:
        load = server(system, clock, Limit(share), seed, rate=queries_a_second, streams=streams)
        return judged(load, queries_a_second, bounds), load

    if rate is not None:
        found, load = trial(rate, seconds)
        met = rate if found.met else None
        return ServerReport(bounds=list(bounds), streams=streams, rate=met, trials=[found]), load
    return _search(trial, clock.now, clock.now() + seconds, streams / alone, bounds, streams)


def _search(
    trial: Callable[[float, float], tuple[Trial, Load]],
    now: Callable[[], float],
    end: float,
    most: float,
    bounds: Sequence[Bound],
    streams: int,
) -> tuple[ServerReport, Load]:
    trials: list[Trial] = []
    low, high = 0.0, most
    best: tuple[float, Load] | None = None
    for number in range(_TRIALS):
        if trials and now() >= end:
            break
        rate = (low + high) / 2
        found, load = trial(rate, max(end - now(), 0.0) / (_TRIALS - number))
        trials.append(found)
        if found.met and (best is None or rate > best[0]):
            best = rate, load
        low, high = (rate, high) if _goes_up(found, bounds) else (low, rate)
    met = best[0] if best else None
    report = ServerReport(bounds=list(bounds), streams=streams, rate=met, trials=trials)
    return report, best[1] if best else load


def _goes_up(trial: Trial, bounds: Sequence[Bound]) -> bool:
    """Tell whether the next rate is a higher one.

    Where a bound is met, or even no late query would not do for it: only a higher rate brings enough.
    """
    return all(
        passes(late, trial.queries, bound.percentile) or not passes(0, trial.queries, bound.percentile)
        for bound, late in zip(bounds, trial.beyond, strict=True)
    )


def judged(load: Load, rate: float, bounds: Sequence[Bound]) -> Trial:
    """Return a trial, held against all bounds by the early-stopping rule.

    A bound is met where so few queries beyond it show it; not met where more than the percentile's share
    are beyond; between the two there were too few queries to tell. The trial is as its worst bound is.
    """
    queries = len(load.latencies) + load.unserved
    beyond = [load.unserved + sum(1000 * each > bound.ms for each in load.latencies) for bound in bounds]
    verdicts = [_met(late, queries, bound.percentile) for bound, late in zip(bounds, beyond, strict=True)]
    met: bool | None = None
    if False in verdicts:
        met = False
    elif verdicts and None not in verdicts:
        met = True
    return Trial(rate=rate, queries=queries, unserved=load.unserved, beyond=beyond, met=met)


def _met(late: int, queries: int, percentile: float) -> bool | None:
    if passes(late, queries, percentile):
        return True
    return False if late > queries * (1 - percentile / 100) else None
