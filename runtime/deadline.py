"""A deadline and a cancellation: a score that comes too late is an error, not a late answer."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from promptray.runtime.errors import ScoringError


class Deadline:
    """Checked between the stages of a score; a stage that has begun runs to its end."""

    def __init__(self, deadline: float | None, cancel: threading.Event | None) -> None:
        if deadline is not None and math.isnan(deadline):
            raise ValueError("deadline must be a number of seconds")
        self._end = None if deadline is None else time.monotonic() + deadline
        self._cancel = cancel

    def left(self) -> float | None:
        """Return the seconds left, None without a deadline."""
        return None if self._end is None else self._end - time.monotonic()

    @property
    def bounded(self) -> bool:
        """Whether there is anything to stop for."""
        return self._end is not None or self._cancel is not None

    def wait(self, ready: Callable[[], bool], where: str) -> None:
        """Ask until it is ready, at first often: most waits are shorter than a millisecond.

        Raises
        ------
        ScoringError
            As :meth:`check`.
        """
        pause = 20e-6
        while not ready():
            self.check(where)
            time.sleep(pause)
            pause = min(2 * pause, 1e-3)

    def check(self, where: str) -> None:
        """Stop here when it is too late or no longer wanted.

        Raises
        ------
        ScoringError
            ``score.cancelled`` or ``score.deadline``, saying where.
        """
        if self._cancel is not None and self._cancel.is_set():
            raise ScoringError("score.cancelled", f"cancelled by the caller {where}")
        if self._end is not None and time.monotonic() > self._end:
            raise ScoringError(
                "score.deadline",
                f"the deadline passed {where}",
                cure="allow more time, or run `promptray doctor`",
            )
