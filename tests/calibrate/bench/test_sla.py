"""Conditions: what is read, what is refused, and what is not known is not met."""

from __future__ import annotations

from typing import Any

import pytest

from promptray.calibrate.bench.cold import start_of
from promptray.calibrate.bench.percentile import fewest_queries
from promptray.calibrate.bench.report import Memory
from promptray.calibrate.bench.run import scenario_of
from promptray.calibrate.bench.scenarios import MOST_QUERIES, Load
from promptray.calibrate.bench.sla import Measured, judge, parse_sla
from tests.calibrate.bench.made import MEMORY, scenario


@pytest.mark.parametrize(
    ("text", "bound", "unit"),
    [
        ("p99<50ms", 50, "ms"),
        ("p99.9<1.5s", 1500, "ms"),
        ("mean<800us", 0.8, "ms"),
        ("cold<3s", 3000, "ms"),
        ("rss<1GB", 1e9, "bytes"),
        ("gpu<2GiB", 2 * 2**30, "bytes"),
        ("offline>20/s", 20, "images/s"),
    ],
)
def test_a_condition_is_read(text: str, bound: float, unit: str) -> None:
    (term,) = parse_sla(text)
    assert (term.bound, term.unit, term.text) == (pytest.approx(bound), unit, text)


def test_conditions_are_joined_by_commas() -> None:
    assert [term.metric for term in parse_sla("p99<50ms, rss<1GB")] == ["p99", "rss"]
    assert [term.percentile for term in parse_sla("p97.5<50ms,rss<1GB")] == [97.5, None]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no condition"),
        ("p99", "no condition"),
        ("p99<", "no condition"),
        ("p99<50", "no condition"),
        ("p100<5ms", "no condition"),
        ("p0<5ms", "between 0 and 100"),
        ("p99.9999999999<1s", "at most 99.9"),
        ("p99.99<1s", "at most 99.9"),
        ("p99<" + "9" * 400 + "ms", "no finite number"),
        ("rss<" + "9" * 305 + "GB", "no finite number"),
        ("p99<=50ms", "no condition"),
        ("p99<nanms", "no condition"),
        ("p99<-5ms", "no condition"),
        ("latency<5ms", "no condition"),
        ("p99<50GB", "has no unit of p99"),
        ("rss<50ms", "has no unit of rss"),
        ("rss<1gb", "has no unit of rss"),
        ("p99>50ms", "wrong side"),
        ("offline<5/s", "wrong side"),
        ("p99<50ms,,rss<1GB", "no condition"),
        ("p99<50ms,p99<60ms", "something else"),
    ],
)
def test_what_is_no_condition_is_refused_with_its_form(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_sla(text)


def test_the_highest_percentile_can_be_met_within_the_most_queries() -> None:
    assert parse_sla("p99.9<1s")[0].percentile == 99.9
    assert fewest_queries(99.9) < MOST_QUERIES < fewest_queries(99.99)


def verdict(text: str, **changes: Any) -> tuple[bool | None, float | None, str | None]:
    measured = {
        "scenarios": [scenario([0.010] * 600 + [0.050] * 62)],
        "start": None,
        "memory": MEMORY,
        **changes,
    }
    found = judge(parse_sla(text)[0], Measured(**measured))
    return found.met, found.found, found.reason


def test_a_percentile_is_held_to_its_early_stopping_estimate() -> None:
    assert verdict("p90<40ms")[:2] == (False, 50.0)  # the plain one is 10 ms
    assert verdict("p90<60ms")[0] is True
    assert verdict("p99<50ms")[0] is False  # 50 is not below 50


def test_too_few_queries_do_not_meet_a_condition_and_say_how_many_would() -> None:
    met, found, reason = verdict("p99.9<60ms")
    assert (met, found) == (None, None)
    assert reason is not None
    assert "takes 6636" in reason
    assert "raise --budget" in reason


def test_other_latencies() -> None:
    assert verdict("mean<14ms")[:2] == (True, pytest.approx(13.746, abs=1e-3))
    assert verdict("max<50ms")[:2] == (False, 50.0)
    assert verdict("max<50ms", scenarios=[])[0] is None


def test_queries_that_were_not_served_are_beyond_every_bound() -> None:
    load = Load([30.0] * 60, 60.0, 60, "time", unserved=203)
    served = scenario_of("server", load, 1)
    assert served.queries == 263
    for text in ("p50<40s", "p90<99999s", "mean<99999s", "max<99999s"):
        reason = "203 of 263 queries were not served in time"
        assert verdict(text, scenarios=[served]) == (False, None, reason)
    assert verdict("p10<40s", scenarios=[served])[:2] == (True, 30000)


def test_memory_that_the_system_does_not_tell_is_not_met() -> None:
    assert verdict("rss<1GB")[:2] == (True, 8e8)
    assert verdict("rss<0.5GB")[0] is False
    assert verdict("gpu<1GB")[0] is None
    assert verdict("rss<1GB", memory=Memory(peak_bytes=None, gpu_bytes=None))[0] is None


def test_start() -> None:
    times = (1, 2, 1, 1, 1, 1, 1, 1)
    taken = [{"import": 0.2, "open": 0.5, "first score": 0.1, "whole process": each} for each in times]
    start = start_of(taken)
    assert verdict("cold<3s", start=start)[:2] == (True, 2000)
    assert verdict("cold<1.5s", start=start)[:2] == (False, 2000)  # the median is one second
    assert verdict("open<400ms", start=start)[:2] == (False, 500)
    assert verdict("cold<3s")[0] is None


@pytest.mark.parametrize("rounds", [1, 7])
def test_few_starts_do_not_meet_a_condition_and_say_how_many_would(rounds: int) -> None:
    taken = [{"import": 0.2, "open": 0.5, "first score": 0.1, "whole process": 2.0}] * rounds
    met, found, reason = verdict("cold<3s", start=start_of(taken))
    assert (met, found) == (None, None)
    assert reason == (
        f"{rounds} starts; the interval of their median takes 8, about 16 s of starts: raise --budget"
    )


def test_rates() -> None:
    many = scenario_of("offline", Load(seconds=2.0, samples=50), None)
    assert verdict("offline>20/s", scenarios=[many])[:2] == (True, 25)
    assert verdict("offline>25/s", scenarios=[many])[0] is False
    assert verdict("offline>20/s")[0] is None
    assert verdict("server>1/s")[0] is None
