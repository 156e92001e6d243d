"""Progress of a build: TensorRT's phases, nested in each other, as one number that never falls."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

#: TensorRT does thousands of steps in a second.
_INTERVAL = 0.05


class Phases:
    """Where a build is in its phases. Thread-safe: TensorRT times kernels in threads of its own.

    Parameters
    ----------
    report : callable
        Takes the name of the innermost phase and the share of steps done, 0 to 1.
    interval : float
        Least seconds between two reports.
    """

    def __init__(self, report: Callable[[str, float], None], *, interval: float = _INTERVAL) -> None:
        self._report, self._interval = report, interval
        self._lock = threading.Lock()
        self._phases: dict[str, tuple[str | None, int, int]] = {}  # name -> parent, steps, done
        self._fraction = 0.0
        self._last = -math.inf

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Enter a phase of so many steps, inside another one or at the top."""
        with self._lock:
            self._phases[name] = (parent, max(steps, 1), 0)
            self._tell(name)

    def step(self, name: str, step: int) -> None:
        """Finish a step of a phase, counted from 0."""
        with self._lock:
            if name in self._phases:
                parent, steps, _ = self._phases[name]
                self._phases[name] = (parent, steps, min(step + 1, steps))
                self._tell(name)

    def finish(self, name: str) -> None:
        """Leave a phase."""
        with self._lock:
            self._phases.pop(name, None)

    def _tell(self, name: str) -> None:
        share = 0.0
        at: str | None = name
        while at in self._phases:
            at, steps, done = self._phases[at]
            share = min(done + share, steps) / steps
        self._fraction = max(self._fraction, share)
        now = time.monotonic()
        if now - self._last >= self._interval:
            self._last = now
            self._report(name, self._fraction)


def open_monitor(trt: Any, phases: Phases) -> Any:
    """Return a progress monitor that TensorRT takes; None where it has none (8.6)."""
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            phases.step(phase_name, step)
            return True

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)

    return Monitor()
