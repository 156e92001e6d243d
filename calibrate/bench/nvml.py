"""What NVIDIA's management library tells of GPU 0, where its bindings (``nvidia-ml-py``) are installed.

Not run on a GPU: none was to be had. Names and units are those of NVML's reference.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from promptray.calibrate.bench.report import Gpu

#: Bits of nvmlClocksEventReasons that say that something slows the GPU down, in the reference's words.
SLOWED = {
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake slowdown",
}


class Nvml:
    """GPU 0. Raises ``NotThere`` when it is made where there is none.

    Parameters
    ----------
    library : module, optional
        Stands in for ``pynvml``.
    """

    source = "nvml"

    def __init__(self, library: Any = None) -> None:
        try:
            self._library = importlib.import_module("pynvml") if library is None else library
            self._library.nvmlInit()
            self._device = self._library.nvmlDeviceGetHandleByIndex(0)
        except ImportError:
            raise NotThere("NVML's bindings are not installed (pip install nvidia-ml-py)") from None
        except Exception as error:  # noqa: BLE001 - a driver that is broken in a new way is no GPU
            raise NotThere(f"NVML finds no GPU ({type(error).__name__})") from None

    def read(self) -> Gpu:
        """Return the GPU now."""
        of, device = self._library, self._device
        name = _asked(lambda: of.nvmlDeviceGetName(device))
        bits = _asked(lambda: of.nvmlDeviceGetCurrentClocksThrottleReasons(device))
        power = _asked(lambda: of.nvmlDeviceGetPowerUsage(device))
        return Gpu(
            name=name.decode() if isinstance(name, bytes) else str(name or "unknown"),
            clock_mhz=_asked(lambda: float(of.nvmlDeviceGetClockInfo(device, of.NVML_CLOCK_SM))),
            memory_clock_mhz=_asked(lambda: float(of.nvmlDeviceGetClockInfo(device, of.NVML_CLOCK_MEM))),
            temperature_c=_asked(lambda: float(of.nvmlDeviceGetTemperature(device, of.NVML_TEMPERATURE_GPU))),
            power_w=None if power is None else power / 1000,
            memory_used_bytes=_asked(lambda: int(of.nvmlDeviceGetMemoryInfo(device).used)),
            throttled=None if bits is None else [reason for bit, reason in SLOWED.items() if bits & bit],
        )


class NotThere(Exception):
    """Why nothing is known of a GPU."""


def _asked(question: Callable[[], Any]) -> Any:
    """Return an answer, None where this GPU or driver has none."""
    try:
        return question()
    except Exception:  # noqa: BLE001 - each card knows a part of the questions
        return None
