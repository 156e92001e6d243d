"""The CUDA provider is tried before it is called ready: a wheel lists it also without CUDA's libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from promptray.cli import run
from promptray.runtime.backends import onnxruntime_trial as trial
from promptray.runtime.engines.here import here
from promptray.runtime.errors import PromptRayError
from tests.fake_cuda import simulated


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider is listed, as by the wheel for GPUs; that its library is not there is real."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: [trial.PROVIDER, "CPUExecutionProvider"])


def test_a_provider_that_is_listed_and_does_not_load_is_not_ready(
    listed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with simulated():
        found = here("onnxruntime-cuda")
        assert run(["doctor", "--json"]) == 0
    assert isinstance(found, PromptRayError)
    assert found.code == "backend.unavailable"
    said = json.loads(capsys.readouterr().out)["backends"]["onnxruntime-cuda"]
    assert (
        said == "not ready: ONNX Runtime cannot use the GPU (the installed onnxruntime is not built for CUDA)"
    )


def test_without_a_gpu_it_is_the_gpu_that_is_missed(listed: None) -> None:
    found = here("onnxruntime-cuda")
    assert isinstance(found, PromptRayError)
    assert "ONNX Runtime" not in found.message


def test_the_least_model_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "PROVIDER", "CPUExecutionProvider")
    assert trial.fault() is None


def test_the_words_of_a_session_that_cannot_be_opened_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_MODEL", b"no model")
    assert "protobuf parsing failed" in str(trial.fault())


def test_the_library_that_is_missing_is_named_without_its_folder(tmp_path: Path) -> None:
    assert "not built for CUDA" in trial.missing_library(tmp_path)
    (tmp_path / "libonnxruntime_providers_cuda.so").write_bytes(b"no library")
    said = trial.missing_library(tmp_path)
    assert "libonnxruntime_providers_cuda.so" in said
    assert str(tmp_path) not in said


def test_what_the_search_for_libraries_prints_does_not_reach_the_documents(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, Any]] = []

    def preload(**options: Any) -> None:
        asked.append(options)
        print("Failed to load libcublas")

    monkeypatch.setattr(ort, "preload_dlls", preload, raising=False)
    trial.find_libraries()
    assert [options["cuda"] for options in asked] == [True]
    assert capsys.readouterr().out == ""
