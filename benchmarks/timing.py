"""Interleaved timing of alternatives in one process: medians, spread, ratios, and the machine's facts."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def interleaved(
    alternatives: Mapping[str, Callable[[], object]], *, rounds: int, baseline: str
) -> dict[str, dict[str, float]]:
    """Time every alternative once per round, so that drift of the machine hits all alike.

    Parameters
    ----------
    alternatives : mapping of str to callable
        What to time; each is run twice before the first round.
    rounds : int
        How often each is timed.
    baseline : str
        The alternative that ratios refer to.

    Returns
    -------
    dict
        For each: median, least and greatest milliseconds, and the median of the per-round ratio to the
        baseline with its quartiles.
    """
    for run in alternatives.values():
        run()
        run()
    taken: dict[str, list[float]] = {name: [] for name in alternatives}
    for _ in range(rounds):
        for name, run in alternatives.items():
            start = time.perf_counter()
            run()
            taken[name].append((time.perf_counter() - start) * 1000.0)
    found = {}
    for name, values in taken.items():
        ratios = [value / base for value, base in zip(values, taken[baseline], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        found[name] = {
            "median_ms": statistics.median(values),
            "min_ms": min(values),
            "max_ms": max(values),
            "ratio": middle,
            "ratio_q1": low,
            "ratio_q3": high,
        }
    return found


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


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write a result file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"\nwrote {path}")
