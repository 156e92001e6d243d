"""How many workers a batch has, and what its summary says. Workers here are of this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from promptray.calibrate.batch import score as module
from promptray.calibrate.batch.parts import Part
from promptray.calibrate.batch.score import score_batch
from promptray.calibrate.batch.worker import Work, Worker
from promptray.runtime.backends import HOST
from promptray.runtime.bundle import Bundle
from promptray.runtime.cores import host_threads
from promptray.runtime.errors import PromptRayError
from tests.fake_tensorrt import simulated_tensorrt
from tests.fuzz.small_bundle import write_small
from tests.simulated_engines import store_engines


@pytest.fixture
def small(tmp_path: Path) -> Bundle:
    write_small(tmp_path)
    return Bundle.open(tmp_path / "small.bundle")


@pytest.fixture
def films(tmp_path: Path) -> list[Path]:
    levels = np.random.default_rng(0).integers(0, 256, (60, 50), np.uint8)
    Image.fromarray(levels).save(tmp_path / "film.png")
    return [tmp_path / "film.png"]


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Workers and GPUs of each, of every pool that is started."""
    started: list[tuple[int, int]] = []

    def run_parts(parts: Sequence[Part], work: Work, *, workers: int, gpus: int, **_: Any) -> Iterator[int]:
        started.append((workers, gpus))
        worker = Worker(work)
        for part in parts:
            worker.score(part)
            yield part.number
        worker.close()

    monkeypatch.setattr(module, "run_parts", run_parts)
    return started


def test_engines_have_a_worker_for_each_gpu_and_no_more(
    small: Bundle,
    films: list[Path],
    tmp_path: Path,
    pools: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    common: dict[str, Any] = {"modality": "DX", "site": site, "backend": "tensorrt"}
    monkeypatch.setattr(module, "host_threads", lambda threads: 16)
    with simulated_tensorrt() as (gpu, _):
        store_engines(small, site, gpu)
        with pytest.raises(PromptRayError) as refused:
            score_batch(small.path, films, tmp_path / "scores", workers=2, **common)
        assert (refused.value.code, refused.value.expected) == ("batch.worker", "at most 1 workers")
        assert pools == []
        report = score_batch(small.path, films, tmp_path / "scores", **common)
        assert (report.backend, report.workers, report.scored) == ("tensorrt", 1, 1)
        assert pools == [(1, 1)]
        # A cluster's GPUs are Ray's to count.
        score_batch(small.path, films, tmp_path / "cluster", workers=2, address="auto", **common)
        assert pools[1:] == [(2, 1)]


def test_on_the_processor_there_is_one_for_two_cores_and_the_summary_says_why(
    small: Bundle, films: list[Path], tmp_path: Path, pools: list[tuple[int, int]]
) -> None:
    report = score_batch(small.path, films, tmp_path / "scores", modality="DX", site=None)
    assert pools == [(max(1, host_threads(None) // 2), 0)]
    assert report.backend == HOST
    assert report.reason == f"auto: the first of the backends this bundle was gated on ({HOST})"


def test_files_that_readers_of_the_folder_would_count_are_refused(
    small: Bundle, films: list[Path], tmp_path: Path, pools: list[tuple[int, int]]
) -> None:
    out = tmp_path / "scores"
    score_batch(small.path, films, out, modality="DX", site=None)
    (out / "part-000000 (copy).parquet").write_bytes((out / "part-000000.parquet").read_bytes())
    with pytest.raises(PromptRayError) as refused:
        score_batch(small.path, films, out, modality="DX", site=None)
    assert refused.value.code == "batch.state"
    assert refused.value.found == "1 files beside 1 parts"
    assert len(pools) == 1
