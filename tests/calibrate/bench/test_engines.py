"""A bench of engines, on a simulated GPU: one enqueue is one stage, and what engines cannot do is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptray.calibrate.bench import sweeps
from promptray.calibrate.bench.opening import Opening
from promptray.calibrate.bench.run import Settings, run_bench
from promptray.runtime.bundle import Bundle
from tests.calibrate.bench.fakes import CountingClock
from tests.fake_tensorrt import simulated_tensorrt
from tests.fuzz.small_bundle import write_small
from tests.simulated_engines import store_engines


def test_one_enqueue_is_one_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "PROMPTS", (2, 1024))
    write_small(tmp_path)
    bundle = Bundle.open(tmp_path / "small.bundle")
    image = bundle.path / bundle.manifest.golden.images[0]
    settings = Settings(budget=2.0, sweeps=("prompts", "threads"), starts=False)
    with simulated_tensorrt() as (gpu, _):
        store_engines(bundle, tmp_path / "site", gpu)
        opening = Opening(bundle.path, backend="tensorrt", site=tmp_path / "site")
        report = run_bench(opening, [image], {"modality": "DX"}, settings, clock=CountingClock())
        gpu.assert_clean()
    assert report.backend.name == "tensorrt"
    names = [stage.name for stage in report.scenarios[0].stages]
    assert names == ["read", "decode", "window", "check", "resize", "infer", "post", "rest"]
    assert any("one enqueue" in note for note in report.notes)
    few, many = report.sweeps[0].rows
    assert few.milliseconds is not None
    assert set(few.stages) == {"infer", "post"}
    assert many.milliseconds is None
    assert "backend.shape" in str(many.not_run)  # the engines were built for 64 prompts
    assert "does not run on threads" in str(report.sweeps[1].rows[0].not_run)
