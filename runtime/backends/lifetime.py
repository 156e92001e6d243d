"""Whether a device's resources may be used, and who still uses them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from promptray.runtime.errors import ScoringError


class Lifetime:
    """Open until it is ended; ending waits for uses that began before. Thread-safe.

    Parameters
    ----------
    inside : callable
        Makes the context that every use is in: :meth:`promptray.runtime.backends.cuda.Cuda.current`.
    """

    def __init__(self, inside: Callable[[], AbstractContextManager[None]]) -> None:
        self._inside = inside
        self._changed = threading.Condition()
        self._ended, self._uses = False, 0

    @contextmanager
    def use(self) -> Iterator[None]:
        """Keep the resources while the block runs.

        Raises
        ------
        ScoringError
            ``score.closed`` once it was ended.
        """
        with self._changed:
            if self._ended:
                raise ScoringError(
                    "score.closed", "the scorer is closed", cure="open it again with Scorer.open"
                )
            self._uses += 1
        try:
            with self._inside():
                yield
        finally:
            with self._changed:
                self._uses -= 1
                self._changed.notify_all()

    def end(self, seconds: float) -> bool:
        """Let no use begin any more, wait for those under way, and tell whether they came to an end."""
        with self._changed:
            self._ended = True
            return self._changed.wait_for(lambda: self._uses == 0, timeout=seconds)
