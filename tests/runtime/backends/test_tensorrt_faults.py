"""Out of memory, a lost device, a device that hangs: right bits or an error, nothing leaks, and then?

Injected at every place, one after the other.
"""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import pytest

from promptray.runtime.backends import GpuOptions
from promptray.runtime.backends.cuda import Cuda
from promptray.runtime.backends.tensorrt_engine import Context, Engine, Library
from promptray.runtime.bundle import Bundle
from promptray.runtime.errors import ScoringError
from tests.fake_cuda import Gpu
from tests.fake_tensorrt import simulated_tensorrt
from tests.runtime.backends.test_tensorrt import (
    PICTURES,
    Simulated,
    code_of,
    error_of,
    numbers,
    on_cpu,
    open_on_gpu,
    score,
)
from tests.simulated_engines import plans_of, store_engines

ONE_STREAM = GpuOptions(streams=1)


@pytest.fixture(scope="module")
def expected(miniature: Bundle) -> list[list[float]]:
    return [numbers(each) for each in on_cpu(miniature)]


def test_out_of_memory_at_every_allocation_of_opening(
    miniature: Bundle, site: Path, expected: list[list[float]]
) -> None:
    with simulated_tensorrt() as (gpu, _):
        store_engines(miniature, site, gpu)
        with open_on_gpu(miniature, site):
            pass
        allocations = gpu.calls["allocation"]
    assert allocations > 20
    for place in range(allocations + 1):
        with simulated_tensorrt() as (gpu, _):
            gpu.refuse_allocation(place)
            error = error_of(lambda: open_on_gpu(miniature, site).close())
            assert (error and error.code) == (None if place == allocations else "backend.out-of-memory")
            gpu.assert_clean()  # while the error, and with it its traceback, is still there
            gpu.heal()
            with open_on_gpu(miniature, site) as scorer:
                assert numbers(score(scorer, PICTURES[0])) == expected[0]
            gpu.assert_clean()


def test_out_of_memory_while_a_prompt_is_added_changes_nothing(
    miniature: Bundle, site: Path, expected: list[list[float]]
) -> None:
    with simulated_tensorrt() as (gpu, library):
        store_engines(miniature, site, gpu)
        with open_on_gpu(miniature, site, gpu=ONE_STREAM) as scorer:
            add = partial(scorer.prompts.add, "new", "There is a rib fracture")
            add_another = partial(scorer.prompts.add, "another", "There is a rib fracture")
            place = 0
            while "new" not in scorer.prompts:
                gpu.refuse_allocation(place)
                code = code_of(add)
                assert code in (None, "backend.out-of-memory")
                assert numbers(score(scorer, PICTURES[place % 6]))[:2] == expected[place % 6]
                place += 1
            assert place > 8
            gpu.heal()
            library.fails_next = True
            assert code_of(add_another) == "backend.failed", "the fault before is not taken for this one"
            held = gpu.held
            scorer.prompts.remove("new")
            score(scorer, PICTURES[0])
            assert gpu.held <= held, "what failed before was given back"
        gpu.assert_clean()


def test_a_fault_of_another_runtime_is_not_taken_for_the_librarys(
    miniature: Bundle, site: Path, tensorrt: Simulated
) -> None:
    """The last error here may be the caller's own; the library's own cause is in its words alone."""
    gpu, library = tensorrt
    store_engines(miniature, site, gpu)
    with open_on_gpu(miniature, site, gpu=GpuOptions(cuda_graphs=False)) as scorer:
        gpu.refuse_allocation(0)
        assert gpu.cudaMalloc(8)[1] is None  # the caller's, who looks at it later
        library.fails_next = True
        assert code_of(lambda: score(scorer, PICTURES[0])) == "backend.failed"
        assert int(gpu.cudaGetLastError()[0]) == 2, "it is the caller's still"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (["1: [runner.cpp::enqueue::1] Error Code 1: Cuda Runtime (out of memory)"], "backend.out-of-memory"),
        (
            ["2: it failed", "Error Code 2: OutOfMemory (Requested size was 8)"],
            "backend.out-of-memory",
        ),
        (["Failed to allocate memory for requested buffer of size 8"], "backend.out-of-memory"),
        (["myelin failed"], "backend.failed"),
        ([], "backend.failed"),
    ],
)
def test_a_library_says_its_cause_in_words(tensorrt: Simulated, said: list[str], code: str) -> None:
    error = Cuda().check_library("a call", said)
    assert error.code == code
    assert (said[0] if said else "it does not say why") in f"{error.message} {error.found}"


def test_an_error_of_an_earlier_call_is_not_quoted(miniature: Bundle) -> None:
    facts = miniature.manifest.graph("image")
    assert facts is not None
    with simulated_tensorrt() as (gpu, _):
        cuda = Cuda()
        library = Library("tensorrt", cuda)
        engine = Engine(library, plans_of(miniature, gpu)["image"], facts)
        shape = (1, *(int(side) for side in facts.inputs[0].dims[1:]))
        context = Context(engine, {"pixels": shape}, cuda.stream())
        calls = {
            "not within profile": lambda: context.reshape({"pixels": (99, *shape[1:])}),
            "no tensor none": lambda: context.place("none", 8),
        }
        for own, call in calls.items():
            library._log.log(library.trt.ILogger.Severity.ERROR, "an older error")
            error = str(error_of(call))
            assert own in error
            assert "an older error" not in error


def test_a_library_that_lost_the_device_is_told_apart_by_the_device(tensorrt: Simulated) -> None:
    gpu, _ = tensorrt
    cuda = Cuda()
    gpu.lose_device(0)
    error = cuda.check_library("a call", ["myelin failed"])
    assert error.code == "backend.device-lost"
    assert "cudaErrorLaunchFailure" in error.message
    assert "myelin failed" in error.message
    assert code_of(cuda.require_usable) == "score.closed"


def test_the_device_lost_at_every_call_of_opening(miniature: Bundle, site: Path) -> None:
    with simulated_tensorrt() as (gpu, _):
        store_engines(miniature, site, gpu)
        with open_on_gpu(miniature, site):
            pass
        calls = sum(gpu.calls.values()) - gpu.calls["allocation"]
    for place in range(0, calls, 3):
        lost = Gpu()
        lost.lose_device(place)
        with simulated_tensorrt(lost):
            code = code_of(lambda: open_on_gpu(miniature, site).close())
            # Before anything was asked of it, a GPU that does not answer is one that is not there.
            assert code in (None, "backend.device-lost", "backend.unavailable")
        lost.assert_clean()


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_the_device_lost_at_every_call_of_a_score(
    miniature: Bundle, site: Path, expected: list[list[float]], cuda_graphs: bool
) -> None:
    with simulated_tensorrt() as (gpu, _):
        store_engines(miniature, site, gpu)
    options = GpuOptions(streams=1, cuda_graphs=cuda_graphs)
    for place in range(12):
        with simulated_tensorrt() as (gpu, _):
            scorer = open_on_gpu(miniature, site, gpu=options)
            gpu.lose_device(place)
            found: list[float] = []
            error = error_of(lambda: found.extend(numbers(score(scorer, PICTURES[1]))))  # noqa: B023
            if error is None:
                assert found == expected[1]
                assert place >= 3, "the call uses the device at least that often"
            else:
                assert error.code == "backend.device-lost"
                with pytest.raises(ScoringError) as refusal:
                    score(scorer, PICTURES[2])
                assert refusal.value.code == "score.closed"
                assert "the device was lost" in refusal.value.message
                assert "cudaErrorLaunchFailure" in str(refusal.value.found)
                assert (
                    code_of(partial(scorer.prompts.add, "new", "There is a rib fracture")) == "score.closed"
                )
            scorer.close()
            gpu.assert_clean()


def test_a_device_lost_while_a_prompt_is_added(miniature: Bundle, site: Path) -> None:
    with simulated_tensorrt() as (gpu, _):
        store_engines(miniature, site, gpu)
        with open_on_gpu(miniature, site, gpu=ONE_STREAM) as scorer:
            before = gpu.calls.copy()
            scorer.prompts.add("new", "There is a rib fracture")
            made = gpu.calls - before
            calls = sum(made.values()) - made["allocation"]
    for place in range(0, calls, 2):
        with simulated_tensorrt() as (gpu, _):
            scorer = open_on_gpu(miniature, site, gpu=ONE_STREAM)
            gpu.lose_device(place)
            assert (
                code_of(partial(scorer.prompts.add, "new", "There is a rib fracture"))
                == "backend.device-lost"
            )
            assert code_of(partial(score, scorer, PICTURES[0])) == "score.closed"
            scorer.close()
            gpu.assert_clean()


def test_a_deadline_passes_while_the_device_works(
    miniature: Bundle, site: Path, tensorrt: Simulated, expected: list[list[float]]
) -> None:
    gpu, _ = tensorrt
    store_engines(miniature, site, gpu)
    with open_on_gpu(miniature, site, gpu=ONE_STREAM) as scorer:
        prepared = scorer.prepare(PICTURES[0], modality="DX")
        gpu.hangs = True
        with pytest.raises(ScoringError) as refusal:
            scorer.infer(prepared, deadline=0.01)
        assert refusal.value.code == "score.deadline"
        assert "while the device was at work" in refusal.value.message
        # Its buffers are still the device's; the next call waits for it and is not mixed up with it.
        with pytest.raises(ScoringError) as refusal:
            scorer.infer(prepared, deadline=0.01)
        assert refusal.value.code == "score.deadline"
        gpu.hangs = False
        assert numbers(score(scorer, PICTURES[1])) == expected[1]
        assert numbers(score(scorer, PICTURES[2], deadline=60.0)) == expected[2]


def test_cancelled_while_the_device_works(
    miniature: Bundle, site: Path, tensorrt: Simulated, expected: list[list[float]]
) -> None:
    gpu, _ = tensorrt
    store_engines(miniature, site, gpu)
    with open_on_gpu(miniature, site) as scorer:
        prepared = scorer.prepare(PICTURES[0], modality="DX")
        cancel = threading.Event()
        gpu.hangs = True
        pending = scorer.submit(prepared, cancel=cancel)
        assert not pending.done()
        cancel.set()
        with pytest.raises(ScoringError) as refusal:
            pending.result()
        assert refusal.value.code == "score.cancelled"
        gpu.hangs = False
        assert numbers(score(scorer, PICTURES[1])) == expected[1]


def test_closing_leaves_memory_alone_that_a_hanging_device_works_on(
    miniature: Bundle, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("promptray.runtime.backends.tensorrt._PATIENCE", 0.01)
    with simulated_tensorrt() as (gpu, _):
        store_engines(miniature, site, gpu)
        scorer = open_on_gpu(miniature, site)
        pending = scorer.submit(scorer.prepare(PICTURES[0], modality="DX"))
        freed = gpu.calls["cudaFreeHost"]
        gpu.hangs = True
        scorer.close()
        assert gpu.calls["cudaFreeHost"] == freed
        assert not gpu.violations
        gpu.hangs = False
        assert pending.result().scores, "what was submitted before comes to its end"
