"""What the system tells of its processor: governor, frequency, throttling. None: not known."""

from __future__ import annotations

import os
import statistics
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_CORES = Path("/sys/devices/system/cpu")


def governor(cores: Path = _CORES) -> str | None:
    """Return what governs the frequency of the cores; several are joined by a comma."""
    found = {word for line in _each(cores, "cpufreq/scaling_governor") for word in line.split()}
    return ", ".join(sorted(found)) or None


def mean_mhz(cores: Path = _CORES, cpuinfo: Path = _CPUINFO) -> float | None:
    """Return the mean frequency of the cores now."""
    found = [float(line) / 1000 for line in _each(cores, "cpufreq/scaling_cur_freq") if line.isdigit()]
    if not found:
        words = [line.partition(":")[2] for line in _lines(cpuinfo) if line.startswith("cpu MHz")]
        found = [float(word) for word in words]
    return round(statistics.fmean(found), 1) if found else None


def times_throttled(cores: Path = _CORES) -> int | None:
    """Return how often cores were throttled for heat since the system started."""
    found = [int(line) for line in _each(cores, "thermal_throttle/core_throttle_count") if line.isdigit()]
    return sum(found) if found else None


def load_average() -> float | None:
    """Return the load of the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def memory_bytes() -> int | None:
    """Return the machine's memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _each(cores: Path, name: str) -> list[str]:
    return [line for path in sorted(cores.glob(f"cpu[0-9]*/{name}")) for line in _lines(path)]


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return []
