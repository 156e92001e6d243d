"""Who asks when, by a clock that only moves when somebody works or sleeps."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import numpy as np
import pytest

from promptray.calibrate.bench.scenarios import (
    MOST_QUERIES,
    Limit,
    MachineClock,
    arrivals,
    closed_loop,
    drawn,
    multi_stream,
    offline,
    server,
    single_stream,
)
from promptray.runtime.errors import ScoringError
from tests.calibrate.bench.fakes import FakeClock, FakeSystem


def test_single_stream_asks_until_its_time_is_over() -> None:
    clock = FakeClock()
    system = FakeSystem(clock, lambda call: 0.5 + call)
    load = single_stream(system, clock, Limit(4.0), seed=1)
    assert load.latencies == [0.5, 1.5, 2.5]
    assert (load.seconds, load.samples, load.ended) == (4.5, 3, "time")
    assert load.stages[1] == {"read": 375, "image": 750}


def test_single_stream_stops_at_its_queries_and_asks_at_least_once() -> None:
    clock = FakeClock()
    load = single_stream(FakeSystem(clock, lambda call: 1.0), clock, Limit(100.0, queries=7), seed=1)
    assert (len(load.latencies), load.ended) == (7, "queries")
    assert len(single_stream(FakeSystem(clock, lambda call: 1.0), clock, Limit(0.0), seed=1).latencies) == 1


def test_images_are_drawn_by_the_seed() -> None:
    clock = FakeClock()
    asked = []
    for seed in (3, 3, 4):
        system = FakeSystem(clock, lambda call: 1.0, images=5)
        single_stream(system, clock, Limit(1e9, queries=300), seed)
        asked.append(system.asked)
    assert asked[0] == asked[1] != asked[2]
    assert set(asked[0]) == set(range(5))
    numbers = drawn(2, 0)
    assert {next(numbers) for _ in range(1000)} == {0, 1}


def test_a_query_of_multi_stream_takes_until_the_last_of_its_images() -> None:
    clock = FakeClock()
    system = FakeSystem(clock, lambda call: 0.25)
    load = multi_stream(system, clock, Limit(5.0), seed=1, samples=8)
    assert load.latencies == [2.0, 2.0, 2.0]
    assert (load.samples, load.seconds, load.ended) == (24, 6.0, "time")
    assert multi_stream(system, clock, Limit(99.0, queries=2), seed=1, samples=2).ended == "queries"


def test_offline_asks_for_images_as_long_as_there_is_time() -> None:
    clock = FakeClock()
    load = offline(FakeSystem(clock, lambda call: 0.5), clock, Limit(3.0), seed=1)
    assert (load.samples, load.seconds, load.ended, load.latencies) == (6, 3.0, "time", [])
    few = offline(FakeSystem(clock, lambda call: 0.5), clock, Limit(3.0, queries=2), seed=1)
    assert (few.samples, few.ended) == (2, "queries")


def test_a_query_of_the_server_waits_for_those_before_it() -> None:
    """Lindley's recursion: a query begins when it has arrived and the one before is done."""
    clock = FakeClock()
    load = server(FakeSystem(clock, lambda call: 0.08), clock, Limit(20.0), seed=5, rate=10.0)
    times = arrivals(10.0, Limit(20.0), 5)
    done, expected = 0.0, []
    for at in times:
        done = max(done, at) + 0.08
        expected.append(done - at)
    assert load.latencies == pytest.approx(expected)
    assert max(load.latencies) > 0.16  # some had to wait
    assert (load.unserved, load.samples, load.ended) == (0, len(times), "time")


def test_a_server_that_cannot_keep_up_comes_to_an_end() -> None:
    clock = FakeClock()
    load = server(FakeSystem(clock, lambda call: 1.0), clock, Limit(10.0), seed=5, rate=10.0)
    times = arrivals(10.0, Limit(10.0), 5)
    assert load.samples == 20  # one a second from the first arrival, until twice the scenario's time is over
    assert load.unserved == len(times) - 20
    assert load.seconds == pytest.approx(times[0] + 20)


def test_several_streams_serve_every_query_once() -> None:
    class Still(FakeClock):
        def sleep(self, seconds: float) -> None:
            pass

    clock = Still()
    system = FakeSystem(clock, lambda call: 0.0)
    load = server(system, clock, Limit(30.0), seed=2, rate=10.0, streams=4)
    assert load.samples == len(load.latencies) == len(arrivals(10.0, Limit(30.0), 2)) == len(system.asked)


@pytest.mark.parametrize("streams", [1, 3])
def test_a_fault_of_any_stream_is_raised(streams: int) -> None:
    class Broken(FakeSystem):
        def one(self, image: int) -> Mapping[str, float]:
            raise ScoringError("score.not-finite", "made to fail")

    clock = FakeClock()
    with pytest.raises(ScoringError, match="made to fail"):
        server(Broken(clock, lambda call: 0.0), clock, Limit(5.0), seed=2, rate=10.0, streams=streams)


def test_a_stream_that_waits_for_its_query_ends_with_the_one_that_fails() -> None:
    """Else an interrupted run would end when the last query that is waited for has arrived."""

    class OwnTime(FakeClock):
        """The main thread's goes on when it sleeps; the others' stands still, long before any query."""

        def now(self) -> float:
            return self.time if threading.current_thread() is threading.main_thread() else -1e9

        def sleep(self, seconds: float) -> None:
            if threading.current_thread() is threading.main_thread():
                super().sleep(seconds)
            else:
                time.sleep(0.001)

    class Interrupted(FakeSystem):
        def one(self, image: int) -> Mapping[str, float]:
            self.asked.append(image)
            raise KeyboardInterrupt

    clock = OwnTime()
    system = Interrupted(clock, lambda call: 0.0)
    with pytest.raises(KeyboardInterrupt):
        server(system, clock, Limit(5.0), seed=2, rate=10.0, streams=3)
    assert len(system.asked) == 1


def test_callers_at_once_end_with_the_one_that_fails() -> None:
    class Interrupted(FakeSystem):
        def one(self, image: int) -> Mapping[str, float]:
            self.asked.append(image)
            if threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt
            time.sleep(0.001)
            return {}

    clock = FakeClock()
    system = Interrupted(clock, lambda call: 0.0)
    with pytest.raises(KeyboardInterrupt):
        closed_loop(system, clock, Limit(1e9), seed=1, streams=2)
    assert len(system.asked) < MOST_QUERIES


def test_callers_at_once_ask_each_for_one_image_after_the_other() -> None:
    clock = FakeClock()
    load = closed_loop(FakeSystem(clock, lambda call: 1.0), clock, Limit(1e9, queries=5), seed=1, streams=3)
    assert (load.samples, len(load.latencies), len(load.stages)) == (15, 15, 15)
    assert load.seconds == 15  # of a clock that all of them move
    alone = closed_loop(FakeSystem(clock, lambda call: 1.0), clock, Limit(3.0), seed=1, streams=1)
    assert alone.latencies == [1.0, 1.0, 1.0]


def test_arrivals_are_a_poisson_process() -> None:
    times = np.array(arrivals(50.0, Limit(200.0), 9))
    gaps = np.diff(times)
    assert (gaps > 0).all()
    assert times[-1] < 200
    assert gaps.mean() == pytest.approx(0.02, rel=0.04)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # exponential: the two are equal
    assert len(arrivals(100.0, Limit(100.0, queries=12), 9)) == 12
    assert len(arrivals(1e308, Limit(1e308, queries=12), 9)) == 12


@pytest.mark.parametrize("rate", [1e-3, 1e-300])
def test_a_rate_that_brings_no_query_in_time_is_not_waited_for(rate: float) -> None:
    clock = FakeClock()
    load = server(FakeSystem(clock, lambda call: 1.0), clock, Limit(5.0), seed=9, rate=rate)
    assert (load.latencies, load.samples, load.unserved, clock.time) == ([], 0, 0, 0)


def test_the_machines_clock_goes_on() -> None:
    clock = MachineClock()
    start = clock.now()
    clock.sleep(-1.0)
    clock.sleep(0.001)
    assert clock.now() - start >= 0.001
