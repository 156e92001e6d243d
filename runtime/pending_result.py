"""An image that was submitted: ask for its result when it is wanted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from promptray.runtime.bound_heads import HeadScores, PendingScores

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
        # Both keep the banks that are scored with; they go when the result is there.
        self._under_way: tuple[PendingScores, Callable[..., T]] | None = pending, finish
        self._lock = threading.Lock()
        self._result: T | None = None

    def done(self) -> bool:
        """Tell whether the result is there or failed; never waits."""
        under_way = self._under_way
        return under_way is None or under_way[0].done()

    def result(self) -> T:
        """Wait for the result; the same when asked again.

        Raises
        ------
        ScoringError
            ``score.deadline`` or ``score.cancelled``, by what it was submitted with; ``score.not-finite``;
            ``backend.*``.
        """
        with self._lock:
            if self._under_way is not None:
                pending, finish = self._under_way
                self._result = finish(*pending.result())
                self._under_way = None
            return self._result  # type: ignore[return-value]
