"""What ``tegrastats`` tells on a Jetson: one line every interval.

Not run on a Jetson: none was to be had. The form of a line is that of JetPack's documentation.
"""

from __future__ import annotations

import re
import shutil
import subprocess

from promptray.calibrate.bench.nvml import NotThere
from promptray.calibrate.bench.report import Gpu

_SECONDS = 5


class Tegrastats:
    """The GPU of a Jetson. Raises ``NotThere`` when it is made where there is no such command."""

    source = "tegrastats"

    def __init__(self) -> None:
        command = shutil.which("tegrastats")
        if command is None:
            raise NotThere("tegrastats is not installed")
        self._command = command

    def read(self) -> Gpu:
        """Return the GPU now."""
        with subprocess.Popen(
            [self._command, "--interval", "100"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            try:
                out, _ = process.communicate(timeout=0.5)
            except subprocess.TimeoutExpired:
                process.kill()
                out, _ = process.communicate(timeout=_SECONDS)
        lines = out.splitlines()
        return parse(lines[-1] if lines else "")


def parse(line: str) -> Gpu:
    """Read one line; what it does not hold is None.

    Examples
    --------
    >>> found = parse("RAM 2448/7620MB SWAP 0/3810MB GR3D_FREQ 17%@[611] gpu@49.5C VDD_IN 4943mW/4900mW")
    >>> found.clock_mhz, found.temperature_c, found.power_w, found.memory_used_bytes
    (611.0, 49.5, 4.943, 2448000000)
    """

    def number(pattern: str) -> float | None:
        match = re.search(pattern, line, re.IGNORECASE)
        return float(match[1]) if match else None

    power = number(r"(?:VDD_IN|POM_5V_IN) (\d+)(?:mW)?/")
    memory = number(r"RAM (\d+)/")
    return Gpu(
        name="Tegra",
        clock_mhz=number(r"GR3D_FREQ \d+%@\[?(\d+)"),
        memory_clock_mhz=number(r"EMC_FREQ \d+%@(\d+)"),
        temperature_c=number(r"GPU@([\d.]+)C"),
        power_w=None if power is None else power / 1000,
        memory_used_bytes=None if memory is None else int(memory) * 10**6,
        throttled=None,
    )
