"""The class of a machine is what is known for certain of its processor."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptray.runtime import machine_class as module
from promptray.runtime.machine_class import classify, consumers_here, machine_class

CASES = [
    ("x86_64", {"avx2", "avx512bw", "avx512_vnni"}, "x86_64-avx512vnni"),
    ("x86_64", {"avx2", "avx512bw", "avx512_vnni", "amx_int8"}, "x86_64-amxint8"),
    ("AMD64", {"avx2", "avx_vnni"}, "x86_64-avxvnni"),
    ("x86_64", {"avx2", "avx512bw"}, "x86_64-avx512"),
    ("x86_64", {"avx2"}, "x86_64-avx2"),
    ("x86_64", {"avx512_vnni"}, "x86_64"),
    ("x86_64", set(), "x86_64"),
    ("arm64", {"asimddp"}, "aarch64-dotprod"),
    ("aarch64", {"asimddp", "i8mm"}, "aarch64-i8mm"),
    ("aarch64", {"i8mm"}, "aarch64"),
    ("riscv64", {"avx2"}, "riscv64"),
    ("", set(), "unknown"),
]


@pytest.mark.parametrize(("architecture", "features", "expected"), CASES)
def test_a_class_needs_all_of_its_features(architecture: str, features: set[str], expected: str) -> None:
    assert classify(architecture, features) == expected


def test_only_what_every_core_has_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("Features\t: asimddp i8mm\nother: i8mm\nFeatures\t: asimddp\n")
    monkeypatch.setattr(module, "_CPUINFO", cpuinfo)
    monkeypatch.setattr(module, "_OF_NUMPY", {})
    assert module.processor_features() == {"asimddp"}


def test_without_cpuinfo_numpy_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_it = module.processor_features()
    monkeypatch.setattr(module, "_CPUINFO", tmp_path / "absent")
    without = module.processor_features()
    assert without <= with_it
    assert without <= set(module._OF_NUMPY.values())
    assert without == with_it & set(module._OF_NUMPY.values())


def test_what_is_half_known_is_a_class_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = machine_class.__wrapped__()
    monkeypatch.setattr(module.platform, "system", lambda: "Windows")
    assert machine_class.__wrapped__() == known
    monkeypatch.setattr(module, "_CPUINFO", tmp_path / "absent")
    assert machine_class.__wrapped__().endswith("-windows")


def test_a_graph_for_this_machine_comes_before_one_for_any() -> None:
    assert consumers_here("onnxruntime-cpu") == (f"onnxruntime-cpu@{machine_class()}", "onnxruntime-cpu")
