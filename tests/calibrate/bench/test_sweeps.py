"""Sweeps vary what they say they vary, and nothing else."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from promptray.calibrate.bench import sweeps
from promptray.calibrate.bench.opening import Opening
from promptray.calibrate.bench.run import Settings, run_bench
from promptray.runtime.cores import DECODE_THREADS
from promptray.runtime.scorer import Scorer
from tests.calibrate.bench.fakes import CountingClock
from tests.fuzz.small_bundle import write_small


@dataclass(frozen=True)
class Watched(Opening):
    """Takes down what decodes JPEG 2000 whenever a scorer is opened."""

    decoded_with: list[str | None] = field(default_factory=list)

    def scorer(self, threads: int | None = None) -> Scorer:
        self.decoded_with.append(os.environ.get(DECODE_THREADS))
        return super().scorer(threads)


def test_threads_are_those_that_decode_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DECODE_THREADS, "7")
    monkeypatch.setattr(sweeps, "host_threads", lambda _: 2)
    write_small(tmp_path)
    bundle = tmp_path / "small.bundle"
    opening = Watched(bundle, site=None)
    settings = Settings(budget=1.0, sweeps=("threads",), starts=False)
    image = bundle / "golden" / "images" / "000.png"
    report = run_bench(opening, [image], {"modality": "DX"}, settings, clock=CountingClock())
    assert [row.setting for row in report.sweeps[0].rows] == ["1", "2"]
    assert opening.decoded_with == ["7", "1", "2"]
    assert os.environ[DECODE_THREADS] == "7"
