"""Parts of reports with chosen numbers."""

from __future__ import annotations

from collections.abc import Sequence

from promptray.calibrate.bench.report import Memory, Scenario
from promptray.calibrate.bench.run import scenario_of
from promptray.calibrate.bench.scenarios import Load


def scenario(seconds: Sequence[float], stages: Sequence[dict[str, float]] = ()) -> Scenario:
    """SingleStream with these latencies."""
    load = Load(list(seconds), sum(seconds), len(seconds), stages=list(stages))
    return scenario_of("single-stream", load, 1)


MEMORY = Memory(peak_bytes=800_000_000, gpu_bytes=None)
