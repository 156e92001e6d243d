"""The class of a machine: what decides how its processor computes integer products.

ONNX Runtime chooses its integer kernels by what the processor can do. Without VNNI, sums of 16 bits may
saturate, so one quantised graph gives other scores on another class of machine: a gate holds for one class.
What is not known for certain counts as absent, which gives a lower class. A machine of the right name that
computes otherwise all the same is found by the golden answers (`promptray.runtime.golden`).
"""

from __future__ import annotations

import platform
from collections.abc import Collection
from functools import cache
from pathlib import Path

import numpy as np

# Features as /proc/cpuinfo writes them, the best first; a class needs all of its features.
_CLASSES: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "x86_64": (
        ("amxint8", ("amx_int8", "avx512_vnni", "avx512bw")),
        ("avx512vnni", ("avx512_vnni", "avx512bw")),
        ("avxvnni", ("avx_vnni", "avx2")),
        ("avx512", ("avx512bw", "avx2")),
        ("avx2", ("avx2",)),
    ),
    "aarch64": (
        ("i8mm", ("i8mm", "asimddp")),
        ("dotprod", ("asimddp",)),
    ),
}
_ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
# numpy's names of the same features; it knows neither AVX-VNNI nor AMX nor I8MM.
_OF_NUMPY = {"AVX2": "avx2", "AVX512BW": "avx512bw", "AVX512VNNI": "avx512_vnni", "ASIMDDP": "asimddp"}
_CPUINFO = Path("/proc/cpuinfo")


@cache
def machine_class() -> str:
    """Return the class of this machine, for example ``"x86_64-avx512vnni"``.

    Where no file tells the features that numpy does not look for, processors that differ in them would be of
    one class: the system's name keeps them apart from those that are known to the last feature.
    """
    found = classify(platform.machine(), processor_features())
    return found if _CPUINFO.exists() else f"{found}-{platform.system().lower() or 'unknown'}"


def processor_name() -> str:
    """Name the processor; platform.processor() is empty on most Linux systems."""
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("model name", "Model", "Hardware")):
                return line.partition(":")[2].strip() or "unknown"
    return platform.processor() or "unknown"


def consumers_here(backend: str) -> tuple[str, str]:
    """Return the names under which a graph may be meant for a backend on this machine, the closest first."""
    return f"{backend}@{machine_class()}", backend


def classify(architecture: str, features: Collection[str]) -> str:
    """Return the class of a processor.

    Parameters
    ----------
    architecture : str
        As `platform.machine` says it.
    features : collection of str
        As Linux writes them.

    Examples
    --------
    >>> classify("AMD64", {"avx2"})
    'x86_64-avx2'
    """
    known = _ARCHITECTURES.get(architecture.lower(), architecture.lower() or "unknown")
    for name, needed in _CLASSES.get(known, ()):
        if set(needed) <= set(features):
            return f"{known}-{name}"
    return known


def processor_features() -> set[str]:
    """Return the processor's features: what numpy found, on every system, and what Linux says beside it."""
    table = getattr(np, "_core", None) or np.core
    found = getattr(table._multiarray_umath, "__cpu_features__", {})
    features = {name for known, name in _OF_NUMPY.items() if found.get(known)}
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return features
    # Cores may differ, and a call may run on any of them: only what every one has counts.
    cores = [set(line.partition(":")[2].split()) for line in lines if line.startswith(("flags", "Features"))]
    return features | set.intersection(*cores) if cores else features
