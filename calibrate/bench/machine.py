"""The machine's facts, and what changed on it while it was measured."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Protocol

from promptray.calibrate.bench import processor
from promptray.calibrate.bench.nvml import NotThere, Nvml
from promptray.calibrate.bench.report import Gpu, Machine, Moment
from promptray.calibrate.bench.tegrastats import Tegrastats
from promptray.runtime.cores import host_threads
from promptray.runtime.machine_class import machine_class, processor_features, processor_name


class GpuReader(Protocol):
    """Where a GPU's facts come from."""

    source: str

    def read(self) -> Gpu:
        """Return the GPU now."""
        ...


class Watch:
    """Looks at the machine when it is made, whenever it is told to, and once more at the end.

    Parameters
    ----------
    readers : sequence of callable, optional
        Make what reads a GPU, or raise ``NotThere``; the first that does not is asked. A Jetson may have
        both, and its own command knows more.
    """

    def __init__(self, readers: tuple[type[GpuReader], ...] = (Tegrastats, Nvml)) -> None:
        self._reader: GpuReader | None = None
        reasons = []
        for reader in readers:
            try:
                self._reader = reader()
                break
            except NotThere as reason:
                reasons.append(str(reason))
        self._unknown = None if self._reader else "; ".join(reasons)
        self._before = self._moment()
        self._at_work: list[Moment] = []

    def look(self) -> None:
        """Look at the machine now, while it is still warm of its work: at the end its clocks are idle."""
        self._at_work.append(self._moment())

    @property
    def gpu_bytes(self) -> int | None:
        """Memory in use on the GPU now."""
        return self._reader.read().memory_used_bytes if self._reader else None

    def end(self) -> Machine:
        """Return the machine's facts."""
        before, after = self._before, self._moment()
        source = self._reader.source if self._reader else None
        return Machine(
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            python=platform.python_version(),
            cpu=processor_name(),
            machine_class=machine_class(),
            cores=host_threads(None),
            cpu_flags=sorted(processor_features()),
            governor=processor.governor(),
            memory_bytes=processor.memory_bytes(),
            gpu_source=source,  # type: ignore[arg-type]
            gpu_unknown=self._unknown,
            before=before,
            after=after,
            throttled=throttled([before, *self._at_work, after]),
            at_work=self._at_work,
        )

    def _moment(self) -> Moment:
        return Moment(
            load_average=processor.load_average(),
            cpu_mhz=processor.mean_mhz(),
            cpu_throttled=processor.times_throttled(),
            gpu=self._reader.read() if self._reader else None,
        )


def throttled(moments: Sequence[Moment]) -> list[str] | None:
    """Return what slowed the machine down from the first of some moments to the last.

    None where nothing is known to have, and the cores or a GPU that is there do not tell.
    """
    found = []
    first, last = moments[0].cpu_throttled, moments[-1].cpu_throttled
    if first is not None and last is not None and last > first:
        found.append(f"cores throttled for heat {last - first} times")
    gpus = [moment.gpu for moment in moments if moment.gpu]
    reasons = [reason for gpu in gpus for reason in gpu.throttled or ()]
    found += [f"GPU: {reason}" for reason in dict.fromkeys(reasons)]
    telling = first is not None and last is not None and all(gpu.throttled is not None for gpu in gpus)
    return found if found or telling else None
