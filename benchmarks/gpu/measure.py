"""Timing of calls on a device that answers on the host, so that the host's clock tells all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from benchmarks.gpu.result import LEAST_CALLS, Latency, latency

BATCHES = (1, 2, 4, 8, 16, 32, 64)
_WARM = 50
_WARM_RATE = 10  # of a batch, which may be large
T = TypeVar("T")


def timed_calls(
    call: Callable[[], T],
    *,
    settle: Callable[[T], object] = lambda answer: None,
    calls: int = 2 * LEAST_CALLS,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Call, once warm, one time after the other.

    Parameters
    ----------
    call : callable
        Returns when its answer is on the host; or with what `settle` waits for, outside of the time.
    settle : callable, optional
    calls : int
    clock : callable, optional
        Returns seconds.
    """
    for _ in range(_WARM):
        settle(call())
    taken = []
    for _ in range(calls):
        start = clock()
        answer = call()
        taken.append((clock() - start) * 1000.0)
        settle(answer)
    return latency(taken)


def images_per_second(
    call_of: Callable[[int], Callable[[], object]],
    batches: Sequence[int] = BATCHES,
    *,
    seconds: float = 2.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[int, float]:
    """Return the rate of each batch, warm: a first call compiles, records, and wakes the clock of the card.

    Parameters
    ----------
    call_of : callable
        Batch -> a call with so many images.
    batches : sequence of int
    seconds : float
        Least time of each.
    clock : callable, optional
    """
    rates = {}
    for batch in batches:
        call = call_of(batch)
        for _ in range(_WARM_RATE):
            call()
        done, start = 0, clock()
        while (taken := clock() - start) < seconds:
            call()
            done += batch
        rates[batch] = done / taken
    return rates
