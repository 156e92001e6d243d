"""The process that builds, started by `build_engine` alone.

It takes a request from its standard input and answers on its standard output. It ends when the process that
started it does, whatever TensorRT is doing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from promptray.export.tensorrt.flavour import load_flavour
from promptray.export.tensorrt.messages import (
    Finished,
    Refused,
    Step,
    read_exactly,
    receive_request,
    send,
)
from promptray.export.tensorrt.network import compile_network
from promptray.export.tensorrt.progress import Phases
from promptray.runtime.errors import BuildError


def main() -> None:
    """Build one engine."""
    # Ctrl-C reaches every process of a terminal; the other one decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Libraries print: what they print must not come between messages.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    questions = sys.stdin.buffer
    request = receive_request(questions)
    content = read_exactly(questions, request.content_bytes)
    size = request.timing_cache_bytes
    timing_cache = None if size is None else read_exactly(questions, size)
    threading.Thread(target=_end_with_the_other, daemon=True).start()
    try:
        flavour = load_flavour(request.flavour)
    except BuildError as error:
        send(answers, _refused(error))
        return
    phases = Phases(lambda phase, fraction: send(answers, Step(phase=phase, fraction=fraction)))
    made = compile_network(flavour.load(), flavour, request, content, timing_cache, phases)
    if isinstance(made, Refused):
        send(answers, made)
    else:
        cache = made.timing_cache
        finished = Finished(
            targets=made.targets,
            layers=made.layers,
            seconds=made.seconds,
            plan_bytes=len(made.plan),
            timing_cache_bytes=None if cache is None else len(cache),
        )
        send(answers, finished, made.plan, cache or b"")


def _refused(error: BuildError) -> Refused:
    return Refused(
        code=error.code,
        message=error.message,
        artefact=error.artefact,
        expected=error.expected,
        found=error.found,
        cure=error.cure,
    )


def _end_with_the_other() -> None:
    """Wait for the end of the other process, or of its interest: nothing more comes from it."""
    os.read(0, 1)  # not through `sys.stdin`, whose lock a thread must not hold when Python ends
    os._exit(1)
