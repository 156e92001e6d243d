"""The machine's facts: what it tells, and that what it does not tell is not made up. No GPU was read here."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from promptray.calibrate.bench import memory, processor, tegrastats
from promptray.calibrate.bench.machine import Watch, throttled
from promptray.calibrate.bench.nvml import NotThere, Nvml
from promptray.calibrate.bench.report import Gpu, Moment
from promptray.calibrate.bench.tegrastats import Tegrastats, parse

GPU = Gpu(
    name="made", clock_mhz=1500.0, memory_clock_mhz=None, temperature_c=61.0, power_w=250.5,
    memory_used_bytes=123, throttled=[],
)  # fmt: skip


class Library(SimpleNamespace):
    """pynvml's names, of a card that knows all answers but one."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def __init__(self, reasons: int = 0) -> None:
        super().__init__()
        self.reasons = reasons

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return f"handle {index}"

    def nvmlDeviceGetName(self, device: str) -> bytes:
        assert device == "handle 0"
        return b"made"

    def nvmlDeviceGetClockInfo(self, device: str, kind: int) -> int:
        if kind == self.NVML_CLOCK_MEM:
            raise RuntimeError("not supported")
        return 1500

    def nvmlDeviceGetTemperature(self, device: str, kind: int) -> int:
        return 61

    def nvmlDeviceGetPowerUsage(self, device: str) -> int:
        return 250_500  # milliwatts

    def nvmlDeviceGetMemoryInfo(self, device: str) -> Any:
        return SimpleNamespace(used=123)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, device: str) -> int:
        return self.reasons


def test_nvml_is_asked_and_what_a_card_does_not_tell_is_none() -> None:
    assert Nvml(Library()).read() == GPU


def test_reasons_of_throttling_are_named_and_idling_is_none() -> None:
    assert Nvml(Library(reasons=0x1 | 0x8 | 0x40)).read().throttled == [
        "hardware slowdown",
        "hardware thermal slowdown",
    ]


def test_a_card_that_does_not_tell_its_reasons_is_not_said_to_have_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Library, "nvmlDeviceGetCurrentClocksThrottleReasons", lambda *_: 1 / 0)
    assert Nvml(Library()).read().throttled is None


def test_without_bindings_or_driver_it_is_said_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(NotThere, match="not installed"):
        Nvml()
    broken = SimpleNamespace(nvmlInit=lambda: 1 / 0)
    with pytest.raises(NotThere, match=r"no GPU \(ZeroDivisionError\)"):
        Nvml(broken)


LINE = (
    "11-23-2026 13:40:00 RAM 3012/7620MB (lfb 4x4MB) SWAP 0/3810MB (cached 0MB) CPU [12%@1510,off] "
    "EMC_FREQ 1%@2133 GR3D_FREQ 99%@[611] CPU@48.5C GPU@50.25C VDD_IN 7431mW/6944mW"
)


def test_a_line_of_tegrastats_is_read() -> None:
    found = parse(LINE)
    assert (found.clock_mhz, found.memory_clock_mhz, found.temperature_c) == (611, 2133, 50.25)
    assert (found.power_w, found.memory_used_bytes) == (7.431, 3012 * 10**6)
    older = parse("RAM 1953/3956MB GR3D_FREQ 0%@76 GPU@41C POM_5V_IN 2532/2532")
    assert (older.clock_mhz, older.temperature_c, older.power_w) == (76, 41, 2.532)
    assert parse("").clock_mhz is None
    assert found.throttled is None, "it does not tell"


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for tegrastats is a shell script")
def test_tegrastats_is_stopped_after_its_first_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "tegrastats"
    command.write_text(f"#!/bin/sh\necho '{LINE}'\nexec sleep 60\n")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(tegrastats.shutil, "which", lambda name: str(command))
    assert Tegrastats().read() == parse(LINE)


def test_a_machine_without_tegrastats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tegrastats.shutil, "which", lambda name: None)
    with pytest.raises(NotThere):
        Tegrastats()


class Reader:
    source = "nvml"

    def read(self) -> Gpu:
        return GPU


class Absent:
    source = "tegrastats"

    def __init__(self) -> None:
        raise NotThere("made to be absent")


def test_the_first_reader_that_is_there_is_asked() -> None:
    watch = Watch((Absent, Reader))  # type: ignore[arg-type]
    machine = watch.end()
    assert (machine.gpu_source, machine.gpu_unknown, machine.after.gpu) == ("nvml", None, GPU)
    assert watch.gpu_bytes == 123


def test_without_any_the_gpu_is_not_known_and_the_reason_is_said() -> None:
    watch = Watch((Absent,))
    machine = watch.end()
    assert (machine.gpu_source, machine.gpu_unknown) == (None, "made to be absent")
    assert machine.before.gpu is machine.after.gpu is watch.gpu_bytes is None
    assert machine.cores >= 1
    assert machine.cpu


def moment(times: int | None, gpu: Gpu | None = None) -> Moment:
    return Moment(load_average=None, cpu_mhz=None, cpu_throttled=times, gpu=gpu)


def test_throttling_is_what_was_added_while_it_was_measured() -> None:
    assert throttled([moment(3), moment(3)]) == []
    assert throttled([moment(3), moment(5)]) == ["cores throttled for heat 2 times"]
    assert throttled([moment(3, GPU), moment(3, GPU)]) == []
    hot = gpu(["software power cap"])
    assert throttled([moment(None, hot), moment(None, hot)]) == ["GPU: software power cap"]
    assert throttled([moment(3, GPU), moment(4, hot), moment(3, GPU)]) == ["GPU: software power cap"]


def test_what_does_not_tell_is_not_said_to_be_unthrottled() -> None:
    silent = gpu(None)
    assert throttled([moment(None), moment(3)]) is None
    assert throttled([moment(None, GPU), moment(None, GPU)]) is None
    assert throttled([moment(3, silent), moment(3, silent)]) is None
    assert throttled([moment(3, silent), moment(5, silent)]) == ["cores throttled for heat 2 times"]


def test_a_gpu_that_was_slowed_down_at_work_is_seen_although_it_idles_at_the_end() -> None:
    readings = [GPU, gpu(["hardware thermal slowdown"]), GPU]

    class Changing(Reader):
        def read(self) -> Gpu:
            return readings.pop(0)

    watch = Watch((Changing,))
    watch.look()
    machine = watch.end()
    assert machine.throttled is not None
    assert "GPU: hardware thermal slowdown" in machine.throttled
    assert [each.gpu for each in machine.at_work] == [gpu(["hardware thermal slowdown"])]


def gpu(reasons: list[str] | None) -> Gpu:
    return msgspec.structs.replace(GPU, throttled=reasons)


def test_what_linux_says_of_its_cores(tmp_path: Path) -> None:
    for number, (governor, frequency, times) in enumerate(
        [("powersave", 800000, 1), ("performance", 3200000, 2)]
    ):
        core = tmp_path / f"cpu{number}"
        (core / "cpufreq").mkdir(parents=True)
        (core / "thermal_throttle").mkdir()
        (core / "cpufreq" / "scaling_governor").write_text(f"{governor}\n")
        (core / "cpufreq" / "scaling_cur_freq").write_text(f"{frequency}\n")
        (core / "thermal_throttle" / "core_throttle_count").write_text(f"{times}\n")
    assert processor.governor(tmp_path) == "performance, powersave"
    assert processor.mean_mhz(tmp_path) == 2000
    assert processor.times_throttled(tmp_path) == 3


def test_what_it_does_not_say_is_not_known(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    assert processor.governor(tmp_path) is None
    assert processor.mean_mhz(tmp_path, cpuinfo) is None
    assert processor.times_throttled(tmp_path) is None
    cpuinfo.write_text("cpu MHz\t\t: 2000.0\ncpu MHz\t\t: 3000.0\n")
    assert processor.mean_mhz(tmp_path, cpuinfo) == 2500


def test_the_greatest_memory_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "linux":
        before = memory.peak_bytes()
        assert before is not None
        kept = bytearray(before)  # as much again
        after = memory.peak_bytes()
        assert after is not None
        assert after >= before
        assert kept[-1] == 0
    status = tmp_path / "status"
    monkeypatch.setattr(memory, "_STATUS", status)
    monkeypatch.setattr(memory.sys, "platform", "linux")
    assert memory.peak_bytes() is None
    status.write_text("Name:\tpython\nVmHWM:\t  123456 kB\n")
    assert memory.peak_bytes() == 123456 * 1024
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert memory.peak_bytes() is None
