"""A scorer that nobody holds any more gives back what it held of the GPU, without a garbage collection."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from promptray.runtime.backends.cuda import Cuda
from promptray.runtime.bundle import Bundle
from promptray.runtime.scorer import Scorer
from tests.fake_tensorrt import simulated_tensorrt
from tests.runtime.backends.test_tensorrt import PICTURES, Simulated, numbers, on_cpu, open_on_gpu, score
from tests.simulated_engines import store_engines

PIXELS = np.random.default_rng(1).normal(size=(3, 3, 32, 32)).astype(np.float32)


@pytest.fixture
def no_collection() -> Iterator[None]:
    """References must do: a garbage collection may come in an hour, or never."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_scorer_that_is_dropped_holds_nothing(
    miniature: Bundle, site: Path, tensorrt: Simulated, no_collection: None
) -> None:
    gpu, _ = tensorrt
    store_engines(miniature, site, gpu)
    scorer = open_on_gpu(miniature, site)
    score(scorer, PICTURES[0])
    scorer.submit_pixels(PIXELS).result()
    scorer.prompts.add("new", "There is a rib fracture")
    score(scorer, PICTURES[1])
    assert gpu.held
    del scorer
    gpu.assert_clean()


def test_what_is_under_way_is_waited_for_and_its_answer_stays(
    miniature: Bundle, site: Path, tensorrt: Simulated, no_collection: None
) -> None:
    gpu, _ = tensorrt
    store_engines(miniature, site, gpu)
    expected = []
    with Scorer.open(miniature.path, site=None, threads=1) as cpu:
        for part in (PIXELS[:2], PIXELS[2:]):
            expected.append(cpu.submit_pixels(part).result().heads[0].logits)
    scorer = open_on_gpu(miniature, site)
    scorer.submit_pixels(PIXELS)  # nobody asks for it
    pending = scorer.submit_pixels(PIXELS)
    del scorer
    gpu.assert_clean()
    assert (pending.result().heads[0].logits == np.concatenate(expected)).all()


def test_a_part_of_a_scorer_keeps_it(
    miniature: Bundle, site: Path, tensorrt: Simulated, no_collection: None
) -> None:
    gpu, _ = tensorrt
    store_engines(miniature, site, gpu)
    expected = numbers(on_cpu(miniature)[0])
    scorer = open_on_gpu(miniature, site)
    pending, prompts = scorer.submit(scorer.prepare(PICTURES[0], modality="DX")), scorer.prompts
    del scorer
    assert numbers(pending.result()) == expected
    prompts.add("new", "There is a rib fracture")
    del pending, prompts
    gpu.assert_clean()


def test_a_collection_while_a_graph_is_recorded_spoils_nothing(
    miniature: Bundle, site: Path, tensorrt: Simulated, no_collection: None
) -> None:
    """Freeing is forbidden then, and a garbage collection may come at any time."""
    gpu, _ = tensorrt
    store_engines(miniature, site, gpu)
    other = Cuda()
    stream = other.stream()
    cycle: list[object] = [open_on_gpu(miniature, site)]
    cycle.append(cycle)
    del cycle
    held = gpu.held
    during = []

    def collected() -> None:
        gc.collect()
        during.append(gpu.held)

    recorded = other.record(stream, collected)
    assert during == [held], "it was collected, and waits"
    assert gpu.held == 2, "the other's stream and its recorded graph"
    other.launch(recorded, stream)
    other.close()


def test_closing_and_dropping_gives_back_once(
    miniature: Bundle, site: Path, tensorrt: Simulated, no_collection: None
) -> None:
    gpu, _ = tensorrt
    store_engines(miniature, site, gpu)
    scorer = open_on_gpu(miniature, site)
    scorer.close()
    calls = gpu.calls.copy()
    del scorer
    assert gpu.calls == calls
    gpu.assert_clean()


def test_dropping_leaves_memory_alone_that_a_hanging_device_works_on(
    miniature: Bundle, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("promptray.runtime.backends.tensorrt._PATIENCE", 0.01)
    with simulated_tensorrt() as (gpu, _):
        store_engines(miniature, site, gpu)
        scorer = open_on_gpu(miniature, site)
        scorer.submit_pixels(PIXELS)
        freed = gpu.calls["cudaFreeHost"]
        gpu.hangs = True
        del scorer
        assert gpu.calls["cudaFreeHost"] == freed
        assert not gpu.violations
