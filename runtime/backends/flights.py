"""Work that is under way on a device: which stream it holds, and how its answer gets to whoever asks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from promptray.runtime.deadline import Deadline
from promptray.runtime.errors import PromptRayError


class Program(Protocol):
    """What does one call at a time: a stream with its buffers."""

    def wait(self, limit: Deadline) -> None:
        """Return when its work is done."""
        ...

    def is_done(self) -> bool:
        """Tell whether its work is done, without waiting."""
        ...


P = TypeVar("P", bound=Program)
T = TypeVar("T")


class Flight(Generic[P, T]):
    """One call under way. Whoever needs its stream first, brings its answer home. Thread-safe."""

    def __init__(self, pool: Pool[P, T], program: P, read: Callable[[P], T], owner: object) -> None:
        self._pool, self._program, self._read = pool, program, read
        self._owner = owner  # what the device still reads
        self._lock = threading.Lock()
        self._answer: T | None = None
        self._error: PromptRayError | None = None
        self._landed = False

    def done(self) -> bool:
        """Tell whether the answer is there; never waits."""
        if self._landed or not self._lock.acquire(blocking=False):
            return self._landed
        try:
            return self._landed or self._program.is_done()
        except PromptRayError:
            return True  # and what is there is an error
        finally:
            self._lock.release()

    def land(self, limit: Deadline) -> None:
        """Wait for the work and take its answer, or its error, from the program, which is free then.

        Raises
        ------
        ScoringError
            ``score.deadline`` or ``score.cancelled`` of the limit: the work goes on.
        """
        if limit.bounded:
            limit.wait(lambda: self._lock.acquire(blocking=False), "while the device was at work")
        else:
            self._lock.acquire()
        try:
            if not self._landed:
                self._land(limit)
        finally:
            self._lock.release()

    def _land(self, limit: Deadline) -> None:
        try:
            self._program.wait(limit)
            self._answer = self._read(self._program)
        except PromptRayError as error:
            if error.code in ("score.deadline", "score.cancelled"):
                raise
            self._error = error
        self._landed = True
        self._pool.take_back(self, self._program, usable=self._error is None)
        self._owner = None

    def answer(self, limit: Deadline) -> T:
        """Return the answer, or raise its error; the same when asked again."""
        self.land(limit)
        if self._error is not None:
            raise self._error
        return self._answer  # type: ignore[return-value]


class Pool(Generic[P, T]):
    """The programs of one shape: made when first needed, at most so many. Thread-safe.

    They take turns: as many calls as there are programs, those of a gate above all, go through every one.

    A call that finds all of them taken brings the oldest flight home and goes on with its program: nobody
    waits for a caller that submitted and never asks.

    Parameters
    ----------
    make : callable
    most : int
    aloft : dict of Flight to None
        Every flight that has not landed, of all pools of a device: it keeps alive what the device works on,
        whoever else has lost interest.
    """

    def __init__(self, make: Callable[[], P], most: int, aloft: dict[Any, None]) -> None:
        self._make, self._most, self._aloft = make, most, aloft
        self._changed = threading.Condition()
        self._free: list[P] = []
        self._flights: list[Flight[P, T]] = []
        self._made = 0

    def fill(self) -> None:
        """Make all programs now."""
        while self._made < self._most:
            self._free.append(self._make())
            self._made += 1

    def fly(
        self, begin: Callable[[P], None], read: Callable[[P], T], limit: Deadline, owner: object
    ) -> Flight[P, T]:
        """Begin a call on a free program.

        Parameters
        ----------
        begin : callable
            Queues the work.
        read : callable
            Takes the answer from the program once the work is done.
        limit : Deadline
            Of waiting for a free program.
        owner : object
            Kept until the work is done.
        """
        program = self._program(limit)
        flight = Flight(self, program, read, owner)
        try:
            begin(program)
        except BaseException:
            # What was queued before the fault may still run, on memory that would be freed.
            self._abandon(program)
            raise
        with self._changed:
            self._flights.append(flight)
            self._aloft[flight] = None
            self._changed.notify_all()
        return flight

    def take_back(self, flight: Flight[P, T], program: P, *, usable: bool) -> None:
        """Free the program of a flight that has landed; one that failed is not used again."""
        with self._changed:
            self._flights.remove(flight)
            self._aloft.pop(flight, None)
            if usable:
                self._free.append(program)
            else:
                self._made -= 1
            self._changed.notify_all()

    def _program(self, limit: Deadline) -> P:
        while True:
            with self._changed:
                if self._free:
                    return self._free.pop(0)
                if self._made < self._most:
                    self._made += 1
                    break
                oldest = self._flights[0] if self._flights else None
                if oldest is None:  # another thread is just beginning
                    limit.check("while the device was at work")
                    self._changed.wait(0.001 if limit.bounded else None)
                    continue
            oldest.land(limit)
        try:
            return self._make()
        except BaseException:
            self._give_up()
            raise

    def _abandon(self, program: P) -> None:
        with contextlib.suppress(PromptRayError):  # the fault that is being raised says more
            program.wait(Deadline(None, None))
        self._give_up()

    def _give_up(self) -> None:
        with self._changed:
            self._made -= 1
            self._changed.notify_all()
