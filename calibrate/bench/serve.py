"""The Server scenario's answer: the highest rate of queries that meets a latency bound."""

from __future__ import annotations

from collections.abc import Callable

from promptray.calibrate.bench.percentile import passes
from promptray.calibrate.bench.report import ServerReport, Trial
from promptray.calibrate.bench.scenarios import Clock, Limit, Load, System, server

_TRIALS = 6


def serve(
    system: System,
    clock: Clock,
    seconds: float,
    seed: int,
    *,
    bound_ms: float | None,
    percentile: float,
    streams: int,
    rate: float | None,
    alone: float,
) -> tuple[ServerReport, Load]:
    """Run one rate, or search for the highest that meets the bound.

    The search halves the range between no query and as many as `streams` images could be done at once in the
    time of one alone; it goes up from rates that met the bound, and down from all others.

    Parameters
    ----------
    system, clock, seconds, seed
        As for :func:`promptray.calibrate.bench.scenarios.server`; the time is shared by all trials.
    bound_ms : float or None
        None only with a `rate`: its latencies are reported and not judged.
    percentile : float
        Of the queries that are to be within the bound.
    streams : int
    rate : float or None
        None searches.
    alone : float
        Seconds of one image alone.

    Returns
    -------
    ServerReport
    Load
        Of the highest rate that met the bound; of the last one where none did.
    """

    def trial(queries_a_second: float, share: float) -> tuple[Trial, Load]:
        load = server(system, clock, Limit(share), seed, rate=queries_a_second, streams=streams)
        return judged(load, queries_a_second, bound_ms, percentile), load

    if rate is not None:
        found, load = trial(rate, seconds)
        met = rate if found.met else None
        return _report(bound_ms, percentile, streams, met, [found]), load
    return _search(trial, clock.now, clock.now() + seconds, streams / alone, bound_ms, percentile, streams)


def _search(
    trial: Callable[[float, float], tuple[Trial, Load]],
    now: Callable[[], float],
    end: float,
    most: float,
    bound_ms: float | None,
    percentile: float,
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
        # Where even no late query would not do, only a higher rate brings enough of them.
        higher = found.met or (found.met is None and not passes(0, found.queries, percentile))
        low, high = (rate, high) if higher else (low, rate)
    report = _report(bound_ms, percentile, streams, best[0] if best else None, trials)
    return report, best[1] if best else load


def judged(load: Load, rate: float, bound_ms: float | None, percentile: float) -> Trial:
    """Return a trial, held against the bound by the early-stopping rule.

    It is met where so few queries beyond the bound show it; not met where more than the percentile's share
    are beyond; between the two there were too few queries to tell.
    """
    beyond = 0 if bound_ms is None else sum(1000 * each > bound_ms for each in load.latencies)
    queries = len(load.latencies) + load.unserved
    trial = Trial(rate=rate, queries=queries, unserved=load.unserved, beyond=beyond + load.unserved, met=None)
    met: bool | None = None
    if bound_ms is not None:
        if passes(trial.beyond, queries, percentile):
            met = True
        elif _too_slow(trial, percentile):
            met = False
    return Trial(rate=rate, queries=queries, unserved=load.unserved, beyond=trial.beyond, met=met)


def _too_slow(trial: Trial, percentile: float) -> bool:
    return trial.beyond > trial.queries * (1 - percentile / 100)


def _report(
    bound_ms: float | None, percentile: float, streams: int, rate: float | None, trials: list[Trial]
) -> ServerReport:
    return ServerReport(bound_ms=bound_ms, percentile=percentile, streams=streams, rate=rate, trials=trials)
