"""Saying how far a long loop is, without a line for each of its steps."""

from __future__ import annotations

from collections.abc import Callable

#: Called with (stage, message, fraction of the stage).
Progress = Callable[[str, str, float], None]


def each_percent(progress: Progress, stage: str, what: str, done: int, total: int) -> None:
    """Report ``what: done of total`` where another percent is full."""
    if done * 100 // total > (done - 1) * 100 // total:
        progress(stage, f"{what}: {done} of {total}", done / total)
