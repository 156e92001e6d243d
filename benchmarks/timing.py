"""Interleaved timing as a table and a result file, with the machine's facts."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptray.calibrate.interleaved import interleaved

__all__ = ["interleaved", "machine", "report", "save"]


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
