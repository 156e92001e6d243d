"""Conditions of a service: ``p99<50ms,rss<1GB``."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from promptray.calibrate.bench.percentile import LADDER, early_stopping, fewest_queries
from promptray.calibrate.bench.report import Bound, Latency, Memory, Scenario, SlaTerm, Start
from promptray.calibrate.bench.summary import slowest_last

#: What a number of conditions is kept in, and how many of those each unit is.
_TIME = ("ms", {"us": 1e-3, "ms": 1.0, "s": 1e3})
_DECIMAL = {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9}
_BYTES = ("bytes", {**_DECIMAL, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30})
_RATE = ("images/s", {"/s": 1.0})
_UNITS = {"rss": _BYTES, "gpu": _BYTES, "offline": _RATE, "server": _RATE}
#: That give the median a 99 % interval.
FEWEST_STARTS = 8
_TERM = re.compile(
    r"(p\d{1,2}(?:\.\d+)?|mean|max|cold|open|rss|gpu|offline|server)([<>])(\d+(?:\.\d+)?)(\D+)"
)
FORM = (
    "terms joined by commas, such as p99<50ms (p50 to p99.9, mean, max: of a score; cold: a new process to "
    "its first score; open), rss<1GB, gpu<2GiB, offline>20/s, server>10/s"
)


@dataclass(frozen=True)
class Term:
    """One condition: a metric, which way, and its bound in ms, bytes or images a second."""

    text: str
    metric: str
    bound: float
    unit: str

    @property
    def percentile(self) -> float | None:
        """The percentile that it is about, where it is about one."""
        return float(self.metric[1:]) if re.fullmatch(r"p\d.*", self.metric) else None


@dataclass(frozen=True)
class Measured:
    """What conditions are held against."""

    scenarios: Sequence[Scenario]
    start: Start | None
    memory: Memory

    def scenario(self, name: str) -> Scenario | None:
        """Return a scenario, where it was run."""
        return next((each for each in self.scenarios if each.name == name), None)

    @property
    def answering(self) -> Scenario | None:
        """The scenario whose latencies count: the first that has some."""
        return next((each for each in self.scenarios if each.latency), None)


def parse_sla(text: str) -> list[Term]:
    """Read conditions.

    Raises
    ------
    ValueError
        Naming the term and the form.
    """
    found = [_term(each.strip()) for each in text.split(",")]
    metrics = [term.metric for term in found]
    if len(set(metrics)) < len(metrics):
        raise ValueError("each of the terms names something else")
    return found


def server_bounds(terms: Sequence[Term]) -> list[Bound]:
    """Return the percentiles that the server scenario's rate is held to, all of them together."""
    return [Bound(percentile=each.percentile, ms=each.bound) for each in terms if each.percentile is not None]


def _term(text: str) -> Term:
    match = _TERM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no condition; expected {FORM}")
    metric, way, number, unit = match.groups()
    kept, units = _UNITS.get(metric, _TIME)
    rate = kept == _RATE[0]
    if unit not in units:
        raise ValueError(f"{text!r} has no unit of {metric}: one of {', '.join(units)}")
    if (way == ">") != rate:
        raise ValueError(f"{text!r} asks for the wrong side: {metric}{'>' if rate else '<'}{number}{unit}")
    term = Term(text, metric, float(number) * units[unit], kept)
    if not math.isfinite(term.bound):
        raise ValueError(f"{text[:20]!r}...: the bound of {metric} is no finite number")
    if term.percentile is not None and not 0 < term.percentile <= LADDER[-1]:
        raise ValueError(
            f"{text!r}: a percentile lies between 0 and 100, at most {LADDER[-1]:g}; a higher one takes more "
            "queries than a scenario has"
        )
    return term


def judge(term: Term, measured: Measured) -> SlaTerm:
    """Hold a condition against what was measured. What is not known is not met.

    A latency that takes in queries that were never served is beyond every bound, and has no number.
    """
    found, reason = _found(term, measured)
    met = None if found is None else found > term.bound if term.unit == _RATE[0] else found < term.bound
    found = None if found == math.inf else found
    return SlaTerm(term=term.text, unit=term.unit, found=found, met=met, reason=reason)


Finding = tuple[float | None, str | None]


def _found(term: Term, measured: Measured) -> Finding:
    if term.percentile is not None:
        return _percentile(term.percentile, measured)
    readers: dict[str, Callable[[Measured], Finding]] = {
        "mean": lambda all_: _of_latency(all_, "mean"),
        "max": lambda all_: _of_latency(all_, "greatest"),
        "cold": lambda all_: _of_start(all_, "whole process"),
        "open": lambda all_: _of_start(all_, "open"),
        "rss": lambda all_: _known(all_.memory.peak_bytes, "the memory of a process is not known here"),
        "gpu": lambda all_: _known(all_.memory.gpu_bytes, "the memory of the GPU is not known"),
        "offline": _offline,
        "server": _server,
    }
    return readers[term.metric](measured)


def _percentile(percentile: float, measured: Measured) -> Finding:
    scenario = measured.answering
    if scenario is None or scenario.latency is None:
        return None, "no scenario with latencies was run"
    latency = scenario.latency
    estimate = early_stopping(slowest_last(latency.each, latency.unserved), percentile)
    if estimate is None:
        needed = fewest_queries(percentile)
        return None, (
            f"{latency.queries} queries; the {percentile:g}th percentile takes {needed}, about "
            f"{needed * statistics.fmean(latency.each) / 1000:.0f} s of {scenario.name}: raise --budget"
        )
    if estimate == math.inf:
        return estimate, _unserved(latency)
    return estimate, f"early-stopping estimate of {scenario.name}"


def _of_latency(measured: Measured, name: str) -> Finding:
    scenario = measured.answering
    if scenario is None or scenario.latency is None:
        return None, "no scenario with latencies was run"
    if scenario.latency.unserved:
        return math.inf, _unserved(scenario.latency)
    return getattr(scenario.latency, name), f"of {scenario.name}"


def _unserved(latency: Latency) -> str:
    return f"{latency.unserved} of {latency.queries} queries were not served in time"


def _of_start(measured: Measured, name: str) -> Finding:
    if measured.start is None:
        return None, "no new process was started"
    found, rounds = measured.start.seconds[name], measured.start.rounds
    if found.high is None:
        return None, (
            f"{rounds} starts; the interval of their median takes {FEWEST_STARTS}, about "
            f"{FEWEST_STARTS * measured.start.seconds['whole process'].value:.0f} s of starts: raise --budget"
        )
    return 1000 * found.high, f"upper end of the 99 % interval of the median of {rounds} starts"


def _offline(measured: Measured) -> Finding:
    scenario = measured.scenario("offline")
    return (
        (None, "the scenario offline was not run") if scenario is None else (scenario.images_per_second, None)
    )


def _server(measured: Measured) -> Finding:
    scenario = measured.scenario("server")
    rate = scenario.server.rate if scenario and scenario.server else None
    return _known(rate, "no rate of the scenario server is known to meet its bounds")


def _known(value: float | None, otherwise: str) -> Finding:
    return (None, otherwise) if value is None else (float(value), None)
