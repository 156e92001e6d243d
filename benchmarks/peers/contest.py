"""Contestants answer the same question: their scores are held equal, then they take turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.result import Comparison, Kind, Row, best_of, interval, ratio
from promptray.calibrate.interleaved import interleaved_times

#: Seconds between calls: threads of OpenMP and, with its defaults, of ONNX Runtime look for work after each.
PAUSE = 0.05
Scores = NDArray[np.float32]


class NotRun(Exception):
    """A contestant cannot run here; the message says why."""


@dataclass(frozen=True)
class Contestant:
    """Someone who scores the image.

    Attributes
    ----------
    name : str
    kind : Kind
    version : str
        Of the library that does the work.
    score : callable
        Returns float32 (1, prompts), on the host.
    """

    name: str
    kind: Kind
    version: str
    score: Callable[[], Scores]


def contest(
    title: str,
    contestants: Sequence[Contestant],
    absent: Sequence[Row] = (),
    *,
    rounds: int,
    score_tolerance: float,
    pause: float = PAUSE,
) -> Comparison:
    """Hold scores equal to the first contestant's, then time all of them, interleaved.

    Parameters
    ----------
    title : str
    contestants : sequence of Contestant
        PromptRay's first.
    absent : sequence of Row
        Of those that are not run.
    rounds : int
    score_tolerance : float
        Largest difference of a score that is still the same; those of another precision are only stated.
    pause : float
        Seconds before each call.

    Raises
    ------
    AssertionError
        Where scores differ: then there is nothing to compare.
    """
    expected = contestants[0].score()
    errors = {each.name: _error(each, expected, score_tolerance) for each in contestants}
    calls = {each.name: each.score for each in contestants}
    times = interleaved_times(calls, rounds=rounds, warm=1, pause=pause)
    own = best_of({each.name: times[each.name] for each in contestants if each.kind == "promptray"})
    rows = [
        Row(
            contestant=each.name,
            kind=each.kind,
            version=each.version,
            milliseconds=interval(times[each.name]),
            ratio=ratio(times[each.name], times[own]),
            score_error=errors[each.name],
        )
        for each in contestants
    ]
    return Comparison(
        title=title,
        prompts=expected.shape[1],
        rounds=rounds,
        score_spread=float(expected.std()),
        score_tolerance=score_tolerance,
        rows=[*rows, *absent],
    )


def _error(contestant: Contestant, expected: Scores, tolerance: float) -> float:
    found = contestant.score()
    if found.shape != expected.shape:
        raise AssertionError(f"{contestant.name}: scores {found.shape}, not {expected.shape}")
    error = float(np.abs(found - expected).max())
    if contestant.kind != "other precision" and not error <= tolerance:  # not a number is no agreement
        raise AssertionError(f"the scores of {contestant.name} differ by {error}, more than {tolerance}")
    return error


def best_peer(comparison: Comparison) -> Row:
    """Return the fastest of those with the same scores who do no more than PromptRay does."""
    peers = [row for row in comparison.rows if row.kind == "peer" and row.milliseconds]
    return min(peers, key=lambda row: row.milliseconds.median if row.milliseconds else float("inf"))


def show(comparison: Comparison) -> None:
    """Print a comparison as a table."""
    print(f"\n{comparison.title}: {comparison.prompts} prompts, {comparison.rounds} rounds")
    print(f"  {'':44} {'ms':>10}  time over PromptRay's: median (quartiles) [95 %]   score error")
    for row in comparison.rows:
        if row.milliseconds is None:
            print(f"  {row.contestant:44} not run: {row.not_run}")
            continue
        print(
            f"  {row.contestant:44} {row.milliseconds.median:10.2f}  {row.ratio!s:50} {row.score_error:.1e}"
        )
