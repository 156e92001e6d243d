"""Many images under way: answers are never mixed up, nobody waits for somebody who does not come back."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from promptray.runtime.backends import GpuOptions
from promptray.runtime.backends.choice import open_engines
from promptray.runtime.bundle import Bundle
from promptray.runtime.errors import ScoringError
from tests.engine_factory import engine_set
from tests.fake_tensorrt import simulated_tensorrt
from tests.runtime.backends.test_tensorrt import (
    PICTURES,
    Simulated,
    numbers,
    on_cpu,
    open_on_gpu,
    score,
)
from tests.simulated_engines import device_of, plans_of, store_engines


@pytest.fixture(scope="module")
def expected(miniature: Bundle) -> list[list[float]]:
    return [numbers(each) for each in on_cpu(miniature)]


@pytest.mark.parametrize("streams", [1, 2])
def test_more_are_submitted_than_there_are_streams(
    miniature: Bundle, site: Path, tensorrt: Simulated, expected: list[list[float]], streams: int
) -> None:
    gpu, _ = tensorrt
    store_engines(miniature, site, gpu)
    with open_on_gpu(miniature, site, gpu=GpuOptions(streams=streams)) as scorer:
        prepared = [scorer.prepare(picture, modality="DX") for picture in PICTURES]
        before = gpu.calls.copy()
        pending = [scorer.submit(each) for each in prepared]
        found = [numbers(each.result()) for each in reversed(pending)]
        assert found == expected[::-1]
        assert all(each.done() for each in pending)
        assert pending[0].result() is pending[0].result()
        assert (gpu.calls - before)["allocation"] == 0


def test_threads_score_and_change_prompts_side_by_side(
    miniature: Bundle, site: Path, tensorrt: Simulated, expected: list[list[float]]
) -> None:
    gpu, _ = tensorrt
    store_engines(miniature, site, gpu)
    with open_on_gpu(miniature, site) as scorer, ThreadPoolExecutor(6) as pool:

        def work(number: int) -> list[float]:
            if number % 10 == 5:
                scorer.prompts.add(f"new {number}", "There is a rib fracture")
                scorer.prompts.remove(f"new {number}")
            result = score(scorer, PICTURES[number % 6], deadline=60.0 if number % 2 else None)
            return numbers(result)[:2]

        found = list(pool.map(work, range(48)))
        # The CPU's bits depend on how many prompts share a call, too; the findings are never mixed up.
        for number, scores in enumerate(found):
            assert scores == pytest.approx(expected[number % 6], abs=1e-5)
    gpu.assert_clean()


def test_what_was_submitted_and_forgotten_holds_nothing_up(
    miniature: Bundle, site: Path, tensorrt: Simulated, expected: list[list[float]]
) -> None:
    gpu, _ = tensorrt
    store_engines(miniature, site, gpu)
    with open_on_gpu(miniature, site, gpu=GpuOptions(streams=1)) as scorer:
        prepared = scorer.prepare(PICTURES[0], modality="DX")
        held = gpu.held
        for _ in range(3):
            scorer.submit(prepared)
        assert numbers(score(scorer, PICTURES[1])) == expected[1]
        scorer.submit(prepared)
        scorer.prompts.add("new", "There is a rib fracture")
        scorer.prompts.remove("new")
        gc.collect()
        score(scorer, PICTURES[1])
        scorer.prompts.add("new", "There is a rib fracture")
        scorer.prompts.remove("new")
        score(scorer, PICTURES[1])
        assert gpu.held == held


def test_an_answer_that_waits_can_be_read_after_closing(
    miniature: Bundle, site: Path, tensorrt: Simulated, expected: list[list[float]]
) -> None:
    gpu, _ = tensorrt
    store_engines(miniature, site, gpu)
    scorer = open_on_gpu(miniature, site)
    prepared = scorer.prepare(PICTURES[0], modality="DX")
    pending = scorer.submit(prepared)
    scorer.close()
    gpu.assert_clean()
    assert numbers(pending.result()) == expected[0]
    for call in (lambda: scorer.submit(prepared), lambda: scorer.prompts.add("late", "There is pneumonia")):
        with pytest.raises(ScoringError) as refusal:
            call()
        assert refusal.value.code == "score.closed"
    scorer.close()


def test_closing_frees_nothing_under_somebody_who_still_prepares(
    miniature: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("promptray.runtime.backends.tensorrt._PATIENCE", 0.01)
    with simulated_tensorrt() as (gpu, _):
        plans = plans_of(miniature, gpu)
        graph = miniature.manifest.graph("image")
        assert graph

        class Opened:
            facts = engine_set(miniature.manifest, plans, device=device_of(gpu))

            def plan(self, role: str, head: str | None = None) -> bytes:
                backend.close()  # as another thread would, while this one loads
                return plans["image"]

        backend = open_engines(Opened())
        loaded = backend.load(bytes, graph)
        assert gpu.held == 2, "its memory, and the kernel, are left to the end of the process"
        with pytest.raises(ScoringError) as refusal:
            loaded.bind({})
        assert refusal.value.code == "score.closed"


def test_streams_must_be_some() -> None:
    for streams in (0, -1, 17):
        with pytest.raises(ValueError, match="streams"):
            GpuOptions(streams=streams)
