"""Calls are timed one by one, warm, and rates by batch: here with a clock that is counted on."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.gpu import __main__ as command
from benchmarks.gpu.cases import CASES, chosen
from benchmarks.gpu.measure import images_per_second, timed_calls
from benchmarks.gpu.torch_runner import TorchRunner
from promptray.runtime.bundle import Bundle
from promptray.runtime.errors import ScoringError
from promptray.runtime.golden import read_golden
from promptray.runtime.preprocess import normalise
from tests.carzero_tiny import write_recipe


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
    assert set(called) == {1, 4}


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


def test_the_commit_is_named() -> None:
    assert len(command.commit().removesuffix("-dirty")) == 40
