"""Interleaved timing as a table and a result file, with the machine's facts."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from promptray.calibrate.interleaved import interleaved

__all__ = ["Laps", "interleaved", "interleaved_stages", "machine", "report", "report_stages", "save"]

#: Runs of each alternative that `interleaved` does not count.
_WARM_UP = 2


class Laps:
    """Milliseconds by stage, each since the end of the one before."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self._last = time.perf_counter()

    def end(self, stage: str) -> None:
        """Give the time since the last end to a stage."""
        now = time.perf_counter()
        self.stages[stage] = (now - self._last) * 1e3
        self._last = now


def interleaved_stages(
    alternatives: Mapping[str, Callable[[], Mapping[str, float]]],
    *,
    rounds: int,
    baseline: str,
    pause: float = 0.0,
) -> dict[str, Any]:
    """Time alternatives that each return their milliseconds by stage.

    Returns
    -------
    dict
        ``total`` as :func:`interleaved` gives it, and ``stages_ms``: for each the medians by stage.
    """
    taken: dict[str, list[Mapping[str, float]]] = {name: [] for name in alternatives}

    def kept(name: str) -> Callable[[], None]:
        return lambda: taken[name].append(alternatives[name]())

    calls = {name: kept(name) for name in alternatives}
    total = interleaved(calls, rounds=rounds, baseline=baseline, pause=pause)
    stages = {
        name: {stage: statistics.median(each[stage] for each in laps[_WARM_UP:]) for stage in laps[0]}
        for name, laps in taken.items()
    }
    return {"total": total, "stages_ms": stages}


def machine() -> dict[str, Any]:
    """Return what a reader needs to know of the machine."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
    }


def report(title: str, found: Mapping[str, Mapping[str, float]]) -> None:
    """Print one comparison as a table."""
    print(f"\n{title}")
    print(f"  {'':34} {'median ms':>10} {'min':>9} {'max':>9} {'ratio (quartiles)':>24}")
    for name, row in found.items():
        spread = f"{row['ratio']:.2f} ({row['ratio_q1']:.2f}-{row['ratio_q3']:.2f})"
        print(f"  {name:34} {row['median_ms']:10.2f} {row['min_ms']:9.2f} {row['max_ms']:9.2f} {spread:>24}")


def report_stages(title: str, found: Mapping[str, Any]) -> None:
    """Print what :func:`interleaved_stages` found."""
    report(title, found["total"])
    for name, stages in found["stages_ms"].items():
        print(f"    {name:10}", "  ".join(f"{stage} {value:.1f}" for stage, value in stages.items()))


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write a result file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"\nwrote {path}")
