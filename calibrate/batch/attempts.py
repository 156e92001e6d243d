"""How often a part was begun, and which image each attempt died on: a file beside the results.

A worker can die (no memory left, a crash in a decoder) and is started again. An image that kills every worker
would keep its part from ever being finished, so after some deaths it is refused and the others go on.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType

import msgspec

from promptray.calibrate.batch.parts import Part

#: Times that an image may be begun, alone, without coming to an end.
MOST = 3


#: Times that workers may die, all of them together, without one part being finished.
MOST_DEATHS = 30


class Stopped(Exception):
    """A worker cannot go on. Ray shows and logs the text, so it names no file."""


class Starts:
    """How often workers were started since a part was last finished.

    A machine without memory kills workers while they open the bundle, and Ray starts them again without end.
    """

    def __init__(self, folder: Path, workers: int) -> None:
        self._path = folder / ".starts"
        self._most = workers + MOST_DEATHS  # each is started once without a death

    def another(self) -> None:
        """Count one.

        Raises
        ------
        Stopped
            There were too many. Ray does not start anew what ended with an exception.
        """
        with self._path.open("ab") as file:
            file.write(b".")
        if self._path.stat().st_size > self._most:
            raise Stopped(f"workers died {MOST_DEATHS} times without finishing a part")

    def forget(self) -> None:
        """Begin to count anew."""
        self._path.unlink(missing_ok=True)


#: What ends an attempt of a process that lives: a full disk, a call that was interrupted.
_ALIVE = (Exception, KeyboardInterrupt, SystemExit)


class _State(msgspec.Struct):
    begun: int = 0
    tries: dict[int, int] = {}


class Attempts:
    """The record of one part; it names images by their index only. Removed when the part is finished."""

    def __init__(self, folder: Path, part: Part) -> None:
        self._path = folder / f".{part.file}.attempts"
        self._state = _State()
        self._under_way: int | None = None

    def __enter__(self) -> Attempts:
        if self._path.exists():
            try:
                self._state = msgspec.json.decode(self._path.read_bytes(), type=_State)
            except msgspec.MsgspecError:  # the machine stopped before it was on disk: somebody was at work
                self._state = _State(begun=1)
        self._state.begun += 1
        self._write()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self._path.unlink(missing_ok=True)
        elif issubclass(kind, _ALIVE):
            self._take_back()

    @property
    def first(self) -> bool:
        """Whether no attempt at this part has died."""
        return self._state.begun == 1

    def may_try(self, index: int) -> bool:
        """Tell whether an image may be begun (once more), and record that it is."""
        tries = self._state.tries.get(index, 0)
        if tries >= MOST:
            return False
        self._state.tries[index] = tries + 1
        self._under_way = index
        self._write()
        return True

    def done(self, index: int) -> None:
        """Record that an image came to an end; it is on disk with the next one that is begun."""
        self._state.tries.pop(index, None)
        self._under_way = None

    def _take_back(self) -> None:
        """Count an attempt that nothing died of as none."""
        self._state.begun -= 1
        if self._under_way is not None:
            self._state.tries[self._under_way] -= 1
        if self._state.begun:
            with contextlib.suppress(OSError):
                self._write()
                return
        # Nothing to remember, or no room for it: deaths of before are counted anew.
        self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        partial = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        partial.write_bytes(msgspec.json.encode(self._state))
        partial.replace(self._path)
