"""What ``doctor`` says of GPUs: the driver, and which backends of engines work, or why not."""

from __future__ import annotations

import ctypes
import sys

from promptray.runtime.backends import OF_ENGINES
from promptray.runtime.engines.here import here
from promptray.runtime.errors import PromptRayError


def driver() -> str:
    """Return the newest CUDA that the driver serves, or why there is none. Needs no bindings and no GPU."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    version = ctypes.c_int(0)
    try:
        status = ctypes.CDLL(name).cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return f"none: {name} cannot be loaded"
    if status != 0:
        return f"{name} is there and answers with error {status}"
    return f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"


def engine_backends() -> dict[str, str]:
    """Return of each backend of engines its version and GPU, or why it cannot be used."""
    return {name: _state(name) for name in OF_ENGINES}


def _state(name: str) -> str:
    try:
        found = here(name)
    except Exception as error:  # noqa: BLE001 - a library that is broken in a new way must not end the report
        return f"not ready: {type(error).__name__} while it was being looked for"
    if isinstance(found, PromptRayError):
        # A system's own words may hold a folder of this machine, which is nobody's business.
        reason = f" ({found.found})" if found.found and not {"/", "\\"} & set(found.found) else ""
        return f"not ready: {found.message}{reason}"
    version, device = found
    return f"ready: {version}, {device.title}, {device.multiprocessors} multiprocessors"
