"""Greatest resident memory of this process, as its system tells it; the standard library alone."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_bytes() -> int | None:
    """Return the greatest resident memory of this process so far; None where the system does not tell."""
    if sys.platform == "linux":
        return _of_status(_STATUS)
    if sys.platform == "win32":
        return _of_windows()
    return None


def _of_status(path: Path) -> int | None:
    """Read ``VmHWM: 123 kB``, which unlike ``getrusage`` knows nothing of the process before ``exec``."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
    except (OSError, ValueError, IndexError):
        return None


class _Counters(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS of psapi.h."""

    _fields_ = [
        ("size", ctypes.c_uint32),
        ("page_faults", ctypes.c_uint32),
        ("peak_working_set", ctypes.c_size_t),
        *((f"other_{number}", ctypes.c_size_t) for number in range(7)),
    ]


def _of_windows() -> int | None:
    """Ask for the peak of the working set. Not run: no Windows machine was to be had."""
    counters = _Counters(size=ctypes.sizeof(_Counters))
    try:
        kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined,unused-ignore]
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        ask = kernel.K32GetProcessMemoryInfo
        ask.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32]
        done = ask(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.size)
    except (OSError, AttributeError):
        return None
    return int(counters.peak_working_set) if done else None
