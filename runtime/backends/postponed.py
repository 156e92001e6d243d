"""Freeing that waits until a graph is recorded: a garbage collection in between would spoil it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _Thread(threading.local):
    """What waits until this thread has recorded its graph; None while it records none."""

    waiting: list[Callable[[], None]] | None = None


_thread = _Thread()


def when_allowed(free: Callable[[], None]) -> None:
    """Free resources: now or, where this thread is recording a graph, as soon as it has."""
    if _thread.waiting is None:
        free()
    else:
        _thread.waiting.append(free)


@contextmanager
def postponing() -> Iterator[None]:
    """Let what is to be freed in this thread wait for the end of the block, in which a graph is recorded."""
    waiting: list[Callable[[], None]] = []
    _thread.waiting = waiting
    try:
        yield
    finally:
        _thread.waiting = None
        for free in waiting:
            free()
