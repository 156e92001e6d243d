"""A build has a process of its own.

TensorRT computes for seconds to many minutes in a call that nothing interrupts, has one logger for the whole
process, and ends the process when memory runs out. In a process of its own, Ctrl-C and a cancel leave nothing
behind, the log is the build's, memory is given back, and a crash is an error.
"""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import IO, TypeAlias

import msgspec

from promptray.export.tensorrt.messages import (
    Finished,
    Refused,
    Request,
    Step,
    encode,
    read_exactly,
    receive_reply,
    write,
)
from promptray.runtime.errors import BuildError

Progress: TypeAlias = Callable[[str, float], None]
_Engine: TypeAlias = tuple[Finished, bytes, bytes | None]
#: Engine, or what was said before it, or why nothing could be asked; None: the process ended without either.
_Heard: TypeAlias = Step | Refused | _Engine | Exception | None
#: Seconds between two looks at whether the build was cancelled.
_LOOK = 0.1
#: Seconds that a process which said its last has to end by itself.
_LAST = 5
#: The current folder, which Python would put first with ``-m`` and ``-c``, is no place to take code from.
_WORKER = (
    "import sys; sys.path = [each for each in sys.path if each]; "
    "from promptray.export.tensorrt.worker import main; main()"
)


def build_in_process(
    request: Request,
    content: bytes,
    timing_cache: bytes,
    progress: Progress | None,
    cancelled: threading.Event | None,
) -> tuple[Finished, bytes, bytes | None]:
    """Build an engine (see `promptray.export.tensorrt.build_engine`).

    Returns
    -------
    Finished
        Its facts.
    bytes
        The plan.
    bytes or None
        The timing cache.

    Raises
    ------
    BuildError
        What the worker refused with; ``engine.cancelled``; ``engine.build-failed`` when it ended by itself.
    """
    command = [sys.executable, "-c", _WORKER]
    asked = (encode(request), content, timing_cache)
    pipe = subprocess.PIPE
    with tempfile.TemporaryFile() as words:
        worker = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=words)
        try:
            heard: queue.Queue[_Heard] = queue.Queue()
            threading.Thread(target=_ask, args=(worker, asked, heard), daemon=True).start()
            listener = threading.Thread(target=_listen, args=(worker, heard), daemon=True)
            listener.start()
            engine = _wait(heard, listener, progress, cancelled)
            if engine is None:
                raise _ended(_status(worker), words)
            return engine
        finally:
            _end(worker)


def _wait(
    heard: queue.Queue[_Heard],
    listener: threading.Thread,
    progress: Progress | None,
    cancelled: threading.Event | None,
) -> _Engine | None:
    while True:
        alive = listener.is_alive()  # asked before the queue: what it said last is not missed
        if cancelled is not None and cancelled.is_set():
            raise BuildError("engine.cancelled", "the build was cancelled; nothing of it is left")
        try:
            said = heard.get(timeout=_LOOK)
        except queue.Empty:
            if alive:
                continue
            return None
        if isinstance(said, Refused):
            raise BuildError(
                said.code,
                said.message,
                artefact=said.artefact,
                expected=said.expected,
                found=said.found,
                cure=said.cure,
            )
        if isinstance(said, Exception):
            raise said
        if not isinstance(said, Step):
            return said
        if progress is not None:
            progress(said.phase, said.fraction)


def _ask(worker: subprocess.Popen[bytes], asked: tuple[bytes, ...], heard: queue.Queue[_Heard]) -> None:
    try:
        write(_open(worker.stdin), *asked)
    except (OSError, ValueError):
        pass  # the worker has ended, which `_listen` notices
    except Exception as error:  # noqa: BLE001 - said where the build is waited for: nothing else would end it
        heard.put(error)


def _listen(worker: subprocess.Popen[bytes], heard: queue.Queue[_Heard]) -> None:
    """Pass on what the process says; whatever happens, an end is said."""
    last: _Heard = None
    try:
        last = _last_word(_open(worker.stdout), heard)
    except MemoryError:
        last = Refused(
            code="engine.build-failed",
            message="there was not enough memory to take the engine over from the process that built it",
            cure="close what else runs on this machine",
        )
    except (EOFError, OSError, ValueError, OverflowError, msgspec.MsgspecError):  # ValueError: closed
        pass
    finally:
        heard.put(last)


def _last_word(stream: IO[bytes], heard: queue.Queue[_Heard]) -> Refused | _Engine:
    while isinstance(reply := receive_reply(stream), Step):
        heard.put(reply)
    if isinstance(reply, Refused):
        return reply
    plan = read_exactly(stream, reply.plan_bytes)
    size = reply.timing_cache_bytes
    return reply, plan, None if size is None else read_exactly(stream, size)


def _status(worker: subprocess.Popen[bytes]) -> int:
    """Return the exit status of a process that says nothing more, and that may still run."""
    try:
        return worker.wait(_LAST)
    except subprocess.TimeoutExpired:
        worker.kill()
        return worker.wait()


def _open(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ValueError("the process was started without this pipe")
    return stream


def _end(worker: subprocess.Popen[bytes]) -> None:
    """Kill the process if it still runs, and wait until it is gone."""
    worker.kill()
    worker.wait()
    for stream in (worker.stdin, worker.stdout):
        with contextlib.suppress(OSError):
            _open(stream).close()


def _ended(status: int, words: IO[bytes]) -> BuildError:
    words.seek(0)
    last = words.read().decode(errors="replace").strip().splitlines()[-1:]
    return BuildError(
        "engine.build-failed",
        "the process that TensorRT was building in ended",
        found=f"exit status {status}" + "".join(f": {line[:300]}" for line in last),
        cure="if memory ran out, close what else runs here or set a smaller `workspace`; else report it",
    )
