"""Calls are timed one by one, warm, and rates by batch: here with a clock that is counted on."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import contestants
from benchmarks.gpu.cases import CASES, chosen
from benchmarks.gpu.measure import images_per_second, timed_calls
from benchmarks.gpu.result import Gpu, Row, latency
from benchmarks.gpu.torch_runner import TorchRunner
from promptray.runtime.bundle import Bundle
from promptray.runtime.engines.facts import Device
from promptray.runtime.errors import PromptRayError, ScoringError
from promptray.runtime.golden import read_golden
from promptray.runtime.preprocess import normalise
from tests.carzero_tiny import write_recipe
from tests.gpu import test_engines as gpu_tests


def ticking(step: float) -> Callable[[], float]:
    """A clock that goes on by a step whenever it is looked at."""
    times = itertools.count()
    return lambda: next(times) * step


def test_what_settles_a_call_is_outside_of_its_time() -> None:
    settled: list[int] = []
    found = timed_calls(lambda: 7, settle=settled.append, calls=1000, clock=ticking(0.002))
    assert found.p50 == pytest.approx(2.0)
    assert set(settled) == {7}
    assert len(settled) == 1000 + 50


def test_a_rate_counts_images() -> None:
    called: list[int] = []
    rates = images_per_second(
        lambda batch: lambda: called.append(batch), (1, 4), seconds=1.0, clock=ticking(0.25)
    )
    assert rates == {1: pytest.approx(3.0), 4: pytest.approx(12.0)}
    assert (called.count(1), called.count(4)) == (10 + 3, 10 + 3), "ten calls of each batch are not counted"


def test_a_run_in_which_no_engine_was_measured_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As on a machine whose libraries do not fit: every contestant has a reason, and none a time."""
    row = Row(
        model="CARZero", contestant="tensorrt", precision="fp16", version=None, cuda_graph=None,
        not_run="TensorRT is not installed",
    )  # fmt: skip
    device = Device(name="Simulated GPU", compute_capability="8.9", multiprocessors=8)
    gpu = Gpu(
        name=device.name, compute_capability="8.9", multiprocessors=8, driver="CUDA 13.0", matrix_tflops={}
    )
    monkeypatch.setattr(command, "device_here", lambda: device)
    monkeypatch.setattr(contestants, "gpu_facts", lambda found: gpu)
    monkeypatch.setattr(contestants, "rows_of", lambda *_: [row])
    assert command.main(["-o", str(tmp_path)]) == 1
    assert "no engine ran\n  tensorrt: TensorRT is not installed" in capsys.readouterr().err


def test_a_gpu_test_run_without_any_backend_fails() -> None:
    """On a machine without a GPU it is for real."""
    nothing = [PromptRayError("backend.unavailable", "no GPU", cure="none")] * 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_tests, "open_library", Mock(side_effect=nothing))
        with pytest.raises(AssertionError, match="no GPU"):
            gpu_tests.test_some_backend_works_here()


def test_the_driver_of_the_card_is_the_machines_and_not_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contestants, "driver", lambda: "CUDA 13.0")
    monkeypatch.setattr(contestants, "matrix_tflops", lambda dtype: 1.0)
    device = Device(name="Simulated GPU", compute_capability="8.9", multiprocessors=8)
    assert contestants.gpu_facts(device).driver == "CUDA 13.0"


def test_a_call_that_returns_with_its_answer_has_no_time_of_submitting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = latency([1.0] * 1000)
    monkeypatch.setattr(contestants, "timed_calls", lambda *_, **__: times)
    monkeypatch.setattr(contestants, "images_per_second", lambda calls: {1: 1.0})
    gpu = Gpu(name="GPU", compute_capability="8.9", multiprocessors=8, driver="CUDA 13.0", matrix_tflops={})
    pixels = np.zeros((1, 3, 8, 8), np.float32)
    measured = contestants.Measured(CASES["ConvNeXt-Base"], Mock(), pixels, 1.0, gpu)
    for contestant, submitted in (("onnxruntime-cuda", None), ("tensorrt", times)):
        row = Row(model="m", contestant=contestant, precision="fp32", version="1", cuda_graph=True)  # type: ignore[arg-type]
        assert measured._scored(row, Mock()).submit_ms == submitted


def test_models_are_chosen_by_a_word() -> None:
    assert [case.prompts for case in chosen(["carzero"])] == [14, 192]
    assert chosen([]) == list(CASES.values())
    with pytest.raises(ValueError, match="no model is called 'bert'"):
        chosen(["bert"])


def test_torch_gives_the_bundles_scores(carzero_bundle, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """The contestant is the original: on the CPU its logits are the golden ones."""
    bundle = Bundle.open(carzero_bundle)
    runner = TorchRunner(bundle, write_recipe(tmp_path), "cpu", "fp32")
    golden = read_golden(bundle)
    pixels = normalise(golden.pictures[:2], bundle.manifest.preprocessing)
    found = np.concatenate(runner.run(pixels), axis=1)
    stored = golden.answers[bundle.manifest.heads[0].name].logits[:2]
    assert np.sort(found, axis=1) == pytest.approx(np.sort(stored, axis=1), abs=1e-4)
    assert runner.multiply_adds(pixels) > 1e6


def test_without_a_gpu_nothing_is_written(monkeypatch: pytest.MonkeyPatch, capsys, tmp_path) -> None:  # type: ignore[no-untyped-def]
    def none() -> None:
        raise ScoringError("backend.unavailable", "there is no driver", cure="none")

    monkeypatch.setattr(command, "device_here", none)
    for arguments in (["--check"], ["-o", str(tmp_path)]):
        assert command.main(arguments) == 1
        assert "not run: no GPU (there is no driver)" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
