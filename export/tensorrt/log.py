"""What TensorRT says while it parses and builds: its reasons are in its log and nowhere else."""

from __future__ import annotations

import re
from typing import Any, Protocol

from promptray.export.tensorrt.layers import HEADING

#: Follows every failed call on a machine without a driver, and is never the reason.
_NOISE = re.compile(r"catchCudaError|CUDA driver version is insufficient")
_WHERE = re.compile(r"^\[?[\w:]+\]?: Error Code \d+: |\s*\(?In \w+ at \S+\)?\s*$")


class Log(Protocol):
    """A logger that TensorRT takes."""

    layers: str
    """The message that lists the layers, or nothing."""

    def first_error(self) -> str:
        """Return the first error that is a reason, in one line; nothing where there was none."""
        ...


def open_log(trt: Any) -> Log:
    """Return a logger that keeps errors and the list of layers, of all that is said."""

    class Kept(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.layers = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.errors.append(message)
            elif message.startswith(HEADING):
                self.layers = message

        def first_error(self) -> str:
            reasons = [each for each in self.errors if not _NOISE.search(each)] or self.errors
            return one_line(reasons[0]) if reasons else ""

    return Kept()


def one_line(message: str) -> str:
    """Return what a message says in one line, without places in TensorRT's own source."""
    line = ": ".join(each.strip() for each in message.splitlines() if each.strip())
    return _WHERE.sub("", line).strip(". ")[:400]
