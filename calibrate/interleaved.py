"""Interleaved timing of alternatives in one process: medians, spread, ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np


def interleaved_times(
    alternatives: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warm: int = 2,
    pause: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time every alternative once per round, so that drift of the machine hits all alike.

    The order of each round is drawn, the same in every run: what one leaves behind, in caches or by threads
    that go on, hits not always the same next one.

    Parameters
    ----------
    alternatives : mapping of str to callable
        What to time.
    rounds : int
        How often each is timed.
    warm : int
        How often each is run before the first round.
    pause : float
        Seconds before each call, not timed: threads of another library spin for a while after its call.
    clock : callable, optional
        Returns seconds.

    Returns
    -------
    dict
        For each its milliseconds, round by round.
    """
    for run in alternatives.values():
        for _ in range(warm):
            run()
    taken: dict[str, list[float]] = {name: [] for name in alternatives}
    order, drawn = list(alternatives), np.random.default_rng(0)
    for _ in range(rounds):
        for place in drawn.permutation(len(order)):
            name = order[place]
            time.sleep(pause)
            start = clock()
            alternatives[name]()
            taken[name].append((clock() - start) * 1000.0)
    return taken


def interleaved(
    alternatives: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    baseline: str,
    pause: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, dict[str, float]]:
    """Summarise what :func:`interleaved_times` takes.

    Parameters
    ----------
    alternatives : mapping of str to callable
        What to time; each is run twice before the first round.
    rounds : int
        How often each is timed, at least twice.
    baseline : str
        The alternative that ratios refer to.
    pause : float
        As there.
    clock : callable, optional
        Returns seconds.

    Returns
    -------
    dict
        For each: median, least and greatest milliseconds, and the median of the per-round ratio to the
        baseline with its quartiles.
    """
    taken = interleaved_times(alternatives, rounds=rounds, pause=pause, clock=clock)
    found = {}
    for name, values in taken.items():
        ratios = [value / base for value, base in zip(values, taken[baseline], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        found[name] = {
            "median_ms": statistics.median(values),
            "min_ms": min(values),
            "max_ms": max(values),
            "ratio": middle,
            "ratio_q1": low,
            "ratio_q3": high,
        }
    return found
