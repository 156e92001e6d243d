"""`promptray doctor` finds what keeps a machine from scoring, and never falls over it."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from promptray.cli import doctor, run


def facts(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = run(["doctor", "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, found


def test_a_sound_machine_has_no_problems(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = facts(capsys)
    assert (code, found["problems"]) == (0, [])
    assert found["runtime"]["onnxruntime"]
    assert set(found["backends"].values()) == {"ready"}
    assert run(["doctor"]) == 0
    assert "onnxruntime" in capsys.readouterr().out


def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "pydicom" else version(name))
    code, found = facts(capsys)
    assert (code, found["problems"]) == (1, ["not installed: pydicom"])
    assert set(found["backends"].values()) == {"not ready"}


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
