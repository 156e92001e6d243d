"""`promptray doctor` finds what keeps a machine from scoring, and never falls over it."""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

import pytest

from promptray.cli import doctor, doctor_gpu, run
from tests.fake_tensorrt import VERSION, simulated_tensorrt


def facts(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = run(["doctor", "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, found


def test_a_sound_machine_has_no_problems(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = facts(capsys)
    assert (code, found["problems"]) == (0, [])
    assert found["runtime"]["onnxruntime"]
    assert found["backends"].pop("onnxruntime-cpu") == "ready"
    assert found["backends"].pop("openvino").startswith("ready: 20")
    assert found["backends"].keys() == {"tensorrt", "tensorrt_rtx", "onnxruntime-cuda"}
    assert run(["doctor"]) == 0
    assert "onnxruntime" in capsys.readouterr().out


def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "pydicom" else version(name))
    code, found = facts(capsys)
    assert (code, found["problems"]) == (1, ["not installed: pydicom"])
    assert found["backends"]["onnxruntime-cpu"] == "not ready"


def test_several_onnxruntime_wheels_are_a_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both = {"onnxruntime": "1", "onnxruntime-gpu": "1"}
    monkeypatch.setattr("promptray.runtime.backends.onnxruntime.installed_wheels", lambda: both)
    code, found = facts(capsys)
    assert code == 1
    assert "several onnxruntime wheels" in found["problems"][0]


def test_an_onnxruntime_that_does_not_load_is_a_problem_not_a_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "promptray.runtime.backends.onnxruntime", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, found = facts(capsys)
    assert code == 1
    assert found["problems"] == ["onnxruntime cannot be imported (ModuleNotFoundError)"]


def test_nothing_of_this_machines_folders_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    _, found = facts(capsys)
    assert sys.prefix not in json.dumps(found)


def test_a_machine_without_a_gpu_says_why_and_has_no_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_library(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    code, found = facts(capsys)
    assert code == 0
    assert found["cuda driver"].startswith("none: ")
    assert found["backends"]["tensorrt"].startswith("not ready: ")
    assert found["backends"]["onnxruntime-cuda"].startswith("not ready: ")


def test_a_machine_without_openvino_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    code, found = facts(capsys)
    assert code == 0
    assert found["backends"]["openvino"].startswith("not ready: OpenVINO is not installed; pip install")


def test_a_driver_and_a_library_that_work_are_named_with_their_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Driver:
        def __init__(self, name: str) -> None:
            pass

        def cuDriverGetVersion(self, version: Any) -> int:
            version._obj.value = 12060
            return 0

    monkeypatch.setattr(ctypes, "CDLL", Driver)
    with simulated_tensorrt():
        code, found = facts(capsys)
    assert code == 0
    assert found["cuda driver"] == "CUDA 12.6"
    assert found["backends"]["tensorrt"].startswith(f"ready: {VERSION}, Simulated GPU")


def test_a_library_that_is_broken_in_a_new_way_does_not_end_the_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(name: str) -> Any:
        raise RecursionError

    monkeypatch.setattr(doctor_gpu, "here", broken)
    code, found = facts(capsys)
    assert code == 0
    assert "RecursionError" in found["backends"]["tensorrt_rtx"]
