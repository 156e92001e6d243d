"""Recorded work that reads memory of others: a recording for each address that comes more than once."""

from __future__ import annotations

from collections.abc import Callable

from promptray.runtime.backends.cuda_resources import Recorded

#: Addresses that are remembered. A producer writes to one buffer, or to a few in turn.
MOST = 4


class Recordings:
    """What was recorded for addresses of late; the one that was not used for longest is forgotten.

    An address that comes for the first time is remembered, and nothing is recorded: many never come again.
    """

    def __init__(self) -> None:
        self._known: dict[int, Recorded | None] = {}  # the latest last

    def find(self, address: int, record: Callable[[], Recorded]) -> Recorded | None:
        """Return the recording for an address, made now if it comes for the second time; None at first."""
        seen = address in self._known
        recorded = self._known.pop(address, None)
        if seen and recorded is None:
            recorded = record()
        self._known[address] = recorded
        if len(self._known) > MOST:
            del self._known[next(iter(self._known))]
        return recorded
