"""Engines through the whole scorer, on a simulated GPU that obeys CUDA's rules: same bits, nothing wasted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptray.runtime.backends import GpuOptions
from promptray.runtime.bundle import Bundle
from promptray.runtime.errors import ScoringError
from promptray.runtime.result import Result
from promptray.runtime.scorer import Scorer
from tests.fake_cuda import Gpu
from tests.fake_tensorrt import TensorRT
from tests.simulated_engines import store_engines

PICTURES = [np.random.default_rng(seed).integers(0, 256, (40, 48), np.uint8) for seed in range(6)]
Simulated = tuple[Gpu, TensorRT]


def score(scorer: Scorer, picture: np.ndarray, **options: Any) -> Result:
    return scorer.score(picture, modality="DX", **options)


def numbers(result: Result) -> list[float]:
    return [each.logit for each in result.scores.values()]


def on_cpu(bundle: Bundle, **options: Any) -> list[Result]:
    with Scorer.open(bundle.path, site=None, threads=1, **options) as scorer:
        return [score(scorer, picture) for picture in PICTURES]


def open_on_gpu(bundle: Bundle, site: Path, **options: Any) -> Scorer:
    return Scorer.open(bundle.path, site=site, backend="tensorrt", threads=1, **options)


@pytest.mark.parametrize("cuda_graphs", [True, False])
@pytest.mark.parametrize("reproducible", [False, True])
def test_scores_and_maps_are_those_of_the_cpu_bit_for_bit(
    miniature: Bundle, site: Path, tensorrt: Simulated, cuda_graphs: bool, reproducible: bool
) -> None:
    gpu, _ = tensorrt
    store_engines(miniature, site, gpu)
    expected = on_cpu(miniature, reproducible=reproducible)
    options = GpuOptions(cuda_graphs=cuda_graphs)
    with open_on_gpu(miniature, site, gpu=options, reproducible=reproducible) as scorer:
        for picture, wanted in zip(PICTURES, expected, strict=True):
            found = score(scorer, picture)
            assert numbers(found) == numbers(wanted)
            for key in wanted.scores:
                assert (found.grid(key) == wanted.grid(key)).all()
    assert bool(gpu.calls["cudaGraphLaunch"]) is cuda_graphs
