"""MLPerf's four scenarios, by LoadGen's rules: who asks when, and what counts as a query's latency.

SingleStream   one image, as soon as the one before has its score
MultiStream    several images at once, as soon as those before have their scores; the last one's time counts
Server         one image each, at times of a Poisson process; counted from its arrival, the wait included
Offline        all images at once: images a second count, and no latency

Images are drawn with replacement by a seeded generator, as LoadGen does it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

#: More queries make no percentile better that is printed, and fill the report.
MOST_QUERIES = 20_000
#: Seconds that a stream waits before it looks whether another has failed, or the caller wants an end.
_NAP = 0.5
Ended = Literal["time", "queries"]


class Clock(Protocol):
    """Seconds that pass."""

    def now(self) -> float:
        """Return the seconds since some moment."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; not at all for none or less."""
        ...


class MachineClock:
    """The machine's own."""

    def now(self) -> float:
        """Return the seconds since some moment."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        if seconds > 0:
            time.sleep(seconds)


class System(Protocol):
    """What is measured. Images are numbered from 0. Thread-safe.

    Attributes
    ----------
    images : int
    """

    images: int

    def one(self, image: int) -> Mapping[str, float]:
        """Score one image, and return the milliseconds of its stages."""
        ...

    def several(self, images: Iterable[int]) -> int:
        """Score images as they are asked for, the next ones being read meanwhile; return how many."""
        ...


@dataclass(frozen=True)
class Limit:
    """How long a scenario goes on: until its time is over, or it has as many queries."""

    seconds: float
    queries: int = MOST_QUERIES


@dataclass
class Load:
    """What a scenario gave.

    Attributes
    ----------
    latencies : list of float
        Seconds of each query, in the order of asking.
    seconds : float
        From the first question to the last answer.
    samples : int
        Images scored.
    ended : {"time", "queries"}
    stages : list of mapping
        Milliseconds of each query's stages; SingleStream only.
    unserved : int
        Queries of the Server scenario that had not begun when its time was over.
    """

    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    samples: int = 0
    ended: Ended = "queries"
    stages: list[Mapping[str, float]] = field(default_factory=list)
    unserved: int = 0


def drawn(images: int, seed: int) -> Iterator[int]:
    """Draw images with replacement, without end."""
    random = np.random.default_rng(seed)
    while True:
        yield from random.integers(images, size=256).tolist()


def single_stream(
    system: System, clock: Clock, limit: Limit, seed: int, stop: threading.Event | None = None
) -> Load:
    """Ask for one image after the other; at least one, and none after `stop` was set."""
    load, images = Load(), drawn(system.images, seed)
    start = end = clock.now()
    while len(load.latencies) < limit.queries and not (stop and stop.is_set()):
        stages = system.one(next(images))
        began, end = end, clock.now()
        load.latencies.append(end - began)
        load.stages.append(stages)
        if end - start >= limit.seconds:
            load.ended = "time"
            break
    load.seconds, load.samples = end - start, len(load.latencies)
    return load


def multi_stream(system: System, clock: Clock, limit: Limit, seed: int, *, samples: int) -> Load:
    """Ask for `samples` images at once, one time after the other; at least once."""
    load, images = Load(), drawn(system.images, seed)
    start = end = clock.now()
    while len(load.latencies) < limit.queries:
        load.samples += system.several([next(images) for _ in range(samples)])
        began, end = end, clock.now()
        load.latencies.append(end - began)
        if end - start >= limit.seconds:
            load.ended = "time"
            break
    load.seconds = end - start
    return load


def offline(system: System, clock: Clock, limit: Limit, seed: int) -> Load:
    """Ask for all images at once: as many as there is time for."""
    load, images, start = Load(), drawn(system.images, seed), clock.now()

    def wanted() -> Iterator[int]:
        for _ in range(limit.queries):
            yield next(images)
            if clock.now() - start >= limit.seconds:
                load.ended = "time"
                return

    load.samples = system.several(wanted())
    load.seconds = clock.now() - start
    return load


def arrivals(rate: float, limit: Limit, seed: int) -> list[float]:
    """Return the times of a Poisson process of `rate` a second within a scenario's limit, if any."""
    random = np.random.default_rng(seed)
    count = math.ceil(min(limit.queries, rate * limit.seconds * 2 + 100))
    times = np.cumsum(random.exponential(1 / rate, count))
    return [float(each) for each in times[: int(np.searchsorted(times, limit.seconds))]]


def server(system: System, clock: Clock, limit: Limit, seed: int, *, rate: float, streams: int = 1) -> Load:
    """Ask at the times of a Poisson process, whether answers keep up or not.

    `streams` threads take the queries in the order of their arrival. Who waits for twice the time of the
    scenario is not served any more: a system that does not keep up would never come to an end.

    Parameters
    ----------
    rate : float
        Queries a second.
    streams : int
        Images under way at once.
    """
    times, images = arrivals(rate, limit, seed), drawn(system.images, seed)
    questions = iter([(number, at, next(images)) for number, at in enumerate(times)])
    found: dict[int, float] = {}
    lock, start = threading.Lock(), clock.now()

    def serve(stream: int, stop: threading.Event) -> None:
        while not stop.is_set():
            with lock:
                number, at, image = next(questions, (-1, 0.0, 0))
            if number < 0 or clock.now() - start > 2 * limit.seconds:
                return
            for _ in range(int((start + at - clock.now()) / _NAP) - 1):  # the rest is slept in one go
                if stop.is_set():
                    return
                clock.sleep(_NAP)
            clock.sleep(start + at - clock.now())
            system.one(image)
            found[number] = clock.now() - start - at

    _side_by_side(serve, streams)
    latencies = [found[number] for number in sorted(found)]
    ended: Ended = "queries" if len(times) == limit.queries else "time"
    return Load(latencies, clock.now() - start, len(found), ended, unserved=len(times) - len(found))


def closed_loop(system: System, clock: Clock, limit: Limit, seed: int, *, streams: int) -> Load:
    """Ask from several threads, each for one image after the other: what many callers get of one scorer."""
    loads: list[Load] = []
    start = clock.now()

    def ask(stream: int, stop: threading.Event) -> None:
        loads.append(single_stream(system, clock, limit, seed + stream, stop))

    _side_by_side(ask, streams)
    latencies = [each for load in loads for each in load.latencies]
    stages = [each for load in loads for each in load.stages]
    return Load(latencies, clock.now() - start, len(latencies), "time", stages)


def _side_by_side(run: Callable[[int, threading.Event], None], threads: int) -> None:
    """Run something in so many threads, the first of which is the caller's, and raise the first fault.

    It is given the thread's number and an event that is set where another one has failed.
    """
    faults: list[BaseException] = []
    stop = threading.Event()

    def guarded(number: int) -> None:
        try:
            run(number, stop)
        except BaseException as fault:  # noqa: BLE001 - raised again below, where the caller is
            faults.append(fault)
            stop.set()

    others = [threading.Thread(target=guarded, args=(number,), daemon=True) for number in range(1, threads)]
    for thread in others:
        thread.start()
    guarded(0)
    for thread in others:
        thread.join()
    if faults:
        raise faults[0]
