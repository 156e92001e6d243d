"""The real TensorRT-RTX on GPUs that are only simulated: it is for some of them, and that is said at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from promptray.cli import run
from promptray.runtime.backends.choice import library_here
from promptray.runtime.bundle import Bundle
from promptray.runtime.engines.here import here
from promptray.runtime.errors import PromptRayError
from promptray.runtime.scorer import Scorer
from tests.fake_cuda import Gpu, simulated

HOPPER = Gpu("Simulated Hopper", (9, 0), 132)


def test_a_gpu_that_it_is_for() -> None:
    with simulated(Gpu(compute_capability=(8, 9))):
        version, device = library_here("tensorrt_rtx")
    assert version.startswith("1.")
    assert device.compute_capability == "8.9"


def test_a_gpu_that_it_is_not_for_is_not_ready(capsys: pytest.CaptureFixture[str]) -> None:
    with simulated(HOPPER):
        found = here("tensorrt_rtx")
        assert run(["doctor", "--json"]) == 0
    assert isinstance(found, PromptRayError)
    assert (found.code, found.found) == ("engine.target", "9.0")
    assert "8.9" in str(found.expected)
    said = json.loads(capsys.readouterr().out)["backends"]["tensorrt_rtx"]
    assert said.startswith("not ready: TensorRT-RTX 1.")
    assert "not for this GPU" in said


def test_no_command_sends_people_in_a_circle(
    miniature: Bundle, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Building is not the cure where nothing can be built."""
    with simulated(HOPPER):
        with pytest.raises(PromptRayError) as refusal:
            Scorer.open(miniature.path, site=site, backend="tensorrt_rtx")
        code = run(["engine", str(miniature.path), "--site", str(site), "--json"])
    assert refusal.value.code == "engine.target"
    assert "promptray engine" not in str(refusal.value.cure)
    assert "onnxruntime-cuda" in str(refusal.value.cure)
    error = json.loads(capsys.readouterr().out)["error"]
    assert (code, error["code"]) == (1, "engine.unavailable")
    assert "not for this GPU" in error["found"]
