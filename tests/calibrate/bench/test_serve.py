"""The highest rate that meets a bound."""

from __future__ import annotations

import pytest

from promptray.calibrate.bench.report import Bound
from promptray.calibrate.bench.scenarios import Load
from promptray.calibrate.bench.serve import judged, serve
from tests.calibrate.bench.fakes import FakeClock, FakeSystem

P90 = Bound(percentile=90, ms=150)


@pytest.mark.parametrize(
    ("beyond", "queries", "unserved", "met"),
    [
        (0, 44, 0, True),  # 0.9 ** 44 < 1 % <= 0.9 ** 43
        (0, 43, 0, None),
        (1, 64, 0, True),
        (1, 63, 0, None),
        (7, 63, 0, False),
        (0, 63, 7, False),
        (0, 0, 3, False),
    ],
)
def test_a_trial_is_met_not_met_or_too_short(
    beyond: int, queries: int, unserved: int, met: bool | None
) -> None:
    latencies = [0.2] * beyond + [0.1] * (queries - beyond)
    trial = judged(Load(latencies, unserved=unserved), 3.0, [P90])
    assert trial.met is met
    assert (trial.queries, trial.beyond) == (queries + unserved, [beyond + unserved])
    assert trial.unserved == unserved


@pytest.mark.parametrize(
    ("late", "met"),
    [
        (0, True),
        (2, None),  # of the 99th percentile there are too few queries to tell
        (20, False),  # the 99th percentile is late, the 90th is not
        (200, False),
    ],
)
def test_a_rate_is_as_the_worst_of_its_bounds(late: int, met: bool | None) -> None:
    bounds = [P90, Bound(percentile=99, ms=150)]
    load = Load([0.2] * late + [0.1] * (662 - late))
    for order in (bounds, bounds[::-1]):
        trial = judged(load, 3.0, order)
        assert trial.met is met
        assert trial.beyond == [late, late]


def test_the_search_holds_all_bounds_together() -> None:
    found = []
    easy, hard = Bound(percentile=50, ms=1000), Bound(percentile=99, ms=20)
    for bounds in ([easy], [hard], [easy, hard], [hard, easy]):
        clock = FakeClock()
        system = FakeSystem(clock, lambda call: 0.01)
        report, load = serve(system, clock, 600.0, 1, bounds=bounds, streams=1, rate=None, alone=0.01)
        assert report.bounds == bounds
        assert report.rate is not None
        assert sum(each > 0.02 for each in load.latencies) <= 0.01 * len(load.latencies) or hard not in bounds
        found.append(report.rate)
    assert found[0] > found[1] == found[2] == found[3]


def test_the_search_finds_a_rate_below_what_is_served_and_above_what_is_easy() -> None:
    clock = FakeClock()
    system = FakeSystem(clock, lambda call: 0.01)
    bounds = [Bound(percentile=90, ms=20)]
    report, load = serve(system, clock, 600.0, 1, bounds=bounds, streams=1, rate=None, alone=0.01)
    assert [trial.rate for trial in report.trials][:1] == [50.0]
    assert len(report.trials) == 6
    assert report.rate == max(trial.rate for trial in report.trials if trial.met)
    assert 30 < report.rate < 40  # at 37.5 a second, 368 of 3815 were late: too near to 10 % to tell
    assert load.latencies
    assert clock.time < 2 * 600


def test_no_rate_is_known_where_no_bound_can_be_met() -> None:
    clock = FakeClock()
    system = FakeSystem(clock, lambda call: 0.01)
    bounds = [Bound(percentile=90, ms=5)]
    report, _ = serve(system, clock, 60.0, 1, bounds=bounds, streams=1, rate=None, alone=0.01)
    assert report.rate is None
    assert not any(trial.met for trial in report.trials)


def test_a_search_that_brings_no_query_tells_nothing_and_stays_within_its_time() -> None:
    clock = FakeClock()
    system = FakeSystem(clock, lambda call: 1000.0)
    bounds = [Bound(percentile=90, ms=5)]
    report, load = serve(system, clock, 1.0, 1, bounds=bounds, streams=1, rate=None, alone=1000.0)
    assert (report.rate, load.latencies, clock.time) == (None, [], 0)
    assert [(trial.queries, trial.met) for trial in report.trials] == [(0, None)] * 6


def test_a_given_rate_is_run_once_and_judged_where_there_is_a_bound() -> None:
    clock = FakeClock()
    system = FakeSystem(clock, lambda call: 0.01)
    report, load = serve(system, clock, 60.0, 1, bounds=[], streams=1, rate=5.0, alone=0.01)
    assert (report.rate, [trial.met for trial in report.trials]) == (None, [None])
    assert len(load.latencies) > 200
    bounds = [Bound(percentile=90, ms=50)]
    report, _ = serve(system, clock, 60.0, 1, bounds=bounds, streams=1, rate=5.0, alone=0.01)
    assert (report.rate, [trial.met for trial in report.trials]) == (5.0, [True])
