"""An image that was submitted: ask for its result when it is wanted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from promptray.runtime.graphs import HeadScores, PendingScores

T = TypeVar("T")


class PendingResult(Generic[T]):
    """What ``scorer.submit`` gives. Thread-safe.

    Parameters
    ----------
    pending : PendingScores
    finish : callable
        Makes the result of the scores of each head and the milliseconds of each stage.
    """

    def __init__(
        self, pending: PendingScores, finish: Callable[[list[HeadScores], Mapping[str, float]], T]
    ) -> None:
        self._pending: PendingScores | None = pending
        self._finish = finish
        self._lock = threading.Lock()
        self._result: T | None = None

    def done(self) -> bool:
        """Tell whether the result is there or failed; never waits."""
        pending = self._pending
        return pending is None or pending.done()

    def result(self) -> T:
        """Wait for the result; the same when asked again.

        Raises
        ------
        ScoringError
            ``score.deadline`` or ``score.cancelled``, by what it was submitted with; ``score.not-finite``;
            ``backend.*``.
        """
        with self._lock:
            if self._pending is not None:
                self._result = self._finish(*self._pending.result())
                self._pending = None  # it keeps the banks it was scored with
            return self._result  # type: ignore[return-value]
