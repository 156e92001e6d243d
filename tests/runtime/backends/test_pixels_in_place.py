"""Pixels of the device are read where they lie: nothing is copied, and a buffer that returns is recorded."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from promptray.runtime.backends import GpuOptions
from promptray.runtime.backends.recordings import MOST
from promptray.runtime.bundle import Bundle
from promptray.runtime.scorer import Scorer
from tests.fake_cuda import Gpu
from tests.fake_tensorrt import simulated_tensorrt
from tests.runtime.backends.test_device_array import Interface
from tests.runtime.backends.test_tensorrt import Simulated, code_of, error_of, open_on_gpu
from tests.simulated_engines import store_engines

#: Pictures of two images each, all different.
PIXELS = [np.random.default_rng(seed).normal(size=(2, 3, 32, 32)).astype(np.float32) for seed in range(6)]
#: Pixels and two features are looked through, two engines run, answers are copied.
FIRST = {
    "cudaGetDevice": 1, "cudaPointerGetAttributes": 1, "cudaMemsetAsync": 1, "cuLaunchKernel": 3,
    "enqueue": 2, "cudaMemcpyAsync": 1, "cudaStreamSynchronize": 1,
}  # fmt: skip
LAUNCHED = {
    "cudaGetDevice": 1, "cudaPointerGetAttributes": 1, "cudaGraphLaunch": 1, "cudaStreamSynchronize": 1,
}  # fmt: skip
ONE_STREAM = GpuOptions(streams=1)
NO_GRAPHS = GpuOptions(streams=1, cuda_graphs=False)


def logits(scorer: Scorer, pixels: Any) -> np.ndarray:
    return scorer.submit_pixels(pixels).result().heads[0].logits


@pytest.fixture(scope="module")
def expected(miniature: Bundle) -> list[np.ndarray]:
    with Scorer.open(miniature.path, site=None, threads=1) as cpu:
        return [logits(cpu, pixels) for pixels in PIXELS]


@pytest.fixture(params=[ONE_STREAM, NO_GRAPHS], ids=["recorded", "queued"])
def options(request: pytest.FixtureRequest) -> GpuOptions:
    given: GpuOptions = request.param
    return given


@pytest.fixture
def scorer(miniature: Bundle, site: Any, tensorrt: Simulated, options: GpuOptions) -> Iterator[Scorer]:
    store_engines(miniature, site, tensorrt[0])
    with open_on_gpu(miniature, site, gpu=options) as opened:
        logits(opened, PIXELS[0])  # the programs for two images are made
        yield opened


@pytest.fixture
def buffers(tensorrt: Simulated) -> Iterator[list[int]]:
    """Addresses of the pictures on the device."""
    gpu, _ = tensorrt
    addresses = [gpu.array(pixels) for pixels in PIXELS]
    yield addresses
    for address in addresses:
        gpu.release(address)


def calls(gpu: Gpu, scorer: Scorer, address: int) -> dict[str, int]:
    """What a score of pixels at an address called."""
    before = gpu.calls.copy()
    logits(scorer, Interface(address))
    return gpu.calls - before


@pytest.mark.parametrize("options", [ONE_STREAM], indirect=True)
def test_an_address_is_queued_then_recorded_then_launched(
    scorer: Scorer, tensorrt: Simulated, buffers: list[int], expected: list[np.ndarray]
) -> None:
    """The one copy of the first call is that of the answers; of pixels and features there is none."""
    gpu, _ = tensorrt
    held = gpu.held
    assert calls(gpu, scorer, buffers[1]) == FIRST
    assert gpu.held == held
    recorded = calls(gpu, scorer, buffers[1])
    assert recorded.items() >= {"cudaStreamBeginCapture": 1, "cudaGraphLaunch": 1, **FIRST}.items()
    for _ in range(3):
        assert calls(gpu, scorer, buffers[1]) == LAUNCHED
        assert (logits(scorer, Interface(buffers[1])) == expected[1]).all()


@pytest.mark.parametrize("options", [NO_GRAPHS], indirect=True)
def test_without_cuda_graphs_nothing_is_recorded(
    scorer: Scorer, tensorrt: Simulated, buffers: list[int]
) -> None:
    for _ in range(3):
        assert calls(tensorrt[0], scorer, buffers[1]) == FIRST
    assert "cudaGraphLaunch" not in tensorrt[0].calls


def test_the_engine_reads_the_callers_memory_and_answers_alone_come_to_the_host(
    scorer: Scorer, tensorrt: Simulated, buffers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu, _ = tensorrt
    read, out = [], []
    monkeypatch.setattr(
        gpu, "read", lambda address, *of: (read.append(address), Gpu.read(gpu, address, *of))[1]
    )
    copy = gpu._copy

    def note(to: int, source: int, size: int, kind: Any) -> Any:
        work = copy(to, source, size, kind)
        return lambda: (out.append((kind.name, size)), work())

    monkeypatch.setattr(gpu, "_copy", note)
    for _ in range(4):
        read.clear()
        out.clear()
        logits(scorer, Interface(buffers[2]))
        assert read[0] == buffers[2]
    # On the last call only what was recorded before the notes were taken could be missing: so none is made.
    assert {kind for kind, _ in out} <= {"cudaMemcpyDeviceToHost"}
    assert all(size < PIXELS[0].nbytes for _, size in out)


def test_pixels_of_device_and_host_take_turns(
    scorer: Scorer, buffers: list[int], expected: list[np.ndarray]
) -> None:
    """Each call has its own pixels, wherever the calls before it had theirs."""
    for place in (0, 1, 0, 1, 2, 0, 3, 1, 4, 5, 0, 0):
        assert (logits(scorer, Interface(buffers[place])) == expected[place]).all()
        assert (logits(scorer, PIXELS[5 - place]) == expected[5 - place]).all()


def test_answers_stay_whatever_is_scored_later(
    scorer: Scorer, buffers: list[int], expected: list[np.ndarray]
) -> None:
    found = [logits(scorer, Interface(address)) for address in buffers]
    found += [logits(scorer, pixels) for pixels in PIXELS]
    assert all((one == other).all() for one, other in zip(found, [*expected, *expected], strict=True))


def test_a_buffer_that_is_written_again_is_read_again(
    scorer: Scorer, tensorrt: Simulated, buffers: list[int], expected: list[np.ndarray]
) -> None:
    for place, pixels in enumerate(PIXELS):
        tensorrt[0].write(buffers[0], pixels)
        assert (logits(scorer, Interface(buffers[0])) == expected[place]).all()


@pytest.mark.parametrize("options", [ONE_STREAM], indirect=True)
def test_recordings_are_few_and_the_one_unused_for_longest_goes(
    scorer: Scorer, tensorrt: Simulated, buffers: list[int]
) -> None:
    gpu, _ = tensorrt
    held = gpu.held
    for _ in range(2):
        for address in buffers[:MOST]:
            calls(gpu, scorer, address)
    assert gpu.held == held + MOST
    assert calls(gpu, scorer, buffers[0]) == LAUNCHED
    calls(gpu, scorer, buffers[MOST])
    calls(gpu, scorer, buffers[MOST])
    logits(scorer, PIXELS[0])
    assert gpu.held == held + MOST, "one was given back"
    assert calls(gpu, scorer, buffers[0]) == LAUNCHED
    assert calls(gpu, scorer, buffers[1])["enqueue"] == 2


@pytest.mark.parametrize("options", [ONE_STREAM], indirect=True)
def test_more_buffers_in_turn_than_are_remembered_are_never_recorded(
    scorer: Scorer, tensorrt: Simulated, buffers: list[int]
) -> None:
    for _ in range(3):
        for address in buffers[: MOST + 1]:
            assert calls(tensorrt[0], scorer, address) == FIRST


def test_what_no_engine_can_read_in_place_is_copied_within_the_device(
    scorer: Scorer, tensorrt: Simulated, expected: list[np.ndarray]
) -> None:
    """TensorRT asks for addresses that are multiples of 256."""
    gpu, _ = tensorrt
    address = gpu.array(np.concatenate([np.zeros(4, np.float32), PIXELS[3].reshape(-1)])) + 16
    for number in range(4):
        before = gpu.calls.copy()
        assert (logits(scorer, Interface(address)) == expected[3]).all()
        made = gpu.calls - before
        assert made["cudaMemcpyAsync"] == (1 if "cudaGraphLaunch" in made and number > 1 else 2)
        assert (logits(scorer, PIXELS[0]) == expected[0]).all()
    spoilt = PIXELS[3].copy()
    spoilt[0, 0, 0, 0] = np.nan
    gpu.write(address, spoilt)
    tensorrt[1].hides_nan = True
    assert code_of(lambda: logits(scorer, Interface(address))) == "score.not-finite"
    gpu.release(address - 16)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers_are_refused_in_every_way_a_call_goes(
    scorer: Scorer, tensorrt: Simulated, buffers: list[int], expected: list[np.ndarray], value: float
) -> None:
    """Also where the engine would make numbers of them, as one of whole numbers does."""
    gpu, library = tensorrt
    library.hides_nan = True
    spoilt = PIXELS[0].copy()
    spoilt[1, 2, 31, 31] = value
    for _ in range(4):
        gpu.write(buffers[0], spoilt)
        error = error_of(lambda: logits(scorer, Interface(buffers[0])))
        assert error
        assert (error.code, error.artefact) == ("score.not-finite", "pixels")
        gpu.write(buffers[0], PIXELS[0])
        assert (logits(scorer, Interface(buffers[0])) == expected[0]).all()


def test_features_that_are_no_numbers_are_refused_by_the_outputs_name(
    scorer: Scorer, tensorrt: Simulated, buffers: list[int], miniature: Bundle
) -> None:
    _, library = tensorrt
    graph = miniature.manifest.graph("image")
    assert graph
    name = graph.outputs[0].name
    library.nan_in, library.hides_nan = {name}, True
    for pixels in (PIXELS[0], *[Interface(buffers[0])] * 3):
        error = error_of(partial(logits, scorer, pixels))
        assert error
        assert (error.code, error.artefact) == ("score.not-finite", f"image graph, output {name}")


def test_the_array_lives_until_its_answer_is_there_and_no_longer(
    scorer: Scorer, tensorrt: Simulated, buffers: list[int]
) -> None:
    for _ in range(3):
        array = Interface(buffers[0])
        alive = weakref.ref(array)
        pending = scorer.submit_pixels(array)
        del array
        assert alive() is not None
        pending.result()
        assert alive() is None


@pytest.mark.parametrize("options", [ONE_STREAM], indirect=True)
def test_no_memory_for_a_recording_is_an_error_of_that_call(
    scorer: Scorer, tensorrt: Simulated, buffers: list[int], expected: list[np.ndarray]
) -> None:
    gpu, _ = tensorrt
    logits(scorer, Interface(buffers[1]))
    gpu.refuse_allocation(0)
    assert code_of(lambda: logits(scorer, Interface(buffers[1]))) == "backend.out-of-memory"
    gpu.heal()
    for _ in range(3):
        assert (logits(scorer, Interface(buffers[1])) == expected[1]).all()


@pytest.mark.parametrize("earlier", [0, 1, 2])
def test_the_device_lost_at_every_call(
    miniature: Bundle, site: Any, expected: list[np.ndarray], earlier: int
) -> None:
    """Of an address that is new, that is recorded, and that is launched."""
    with simulated_tensorrt() as (gpu, _):
        store_engines(miniature, site, gpu)
    place = lost = 0
    while lost == place:
        with simulated_tensorrt() as (gpu, _):
            scorer = open_on_gpu(miniature, site, gpu=ONE_STREAM)
            address = gpu.array(PIXELS[0])
            found = logits(scorer, PIXELS[0])
            for _ in range(earlier):
                found = logits(scorer, Interface(address))
            gpu.lose_device(place)
            error = error_of(lambda: logits(scorer, Interface(address)))  # noqa: B023
            if error is None:
                assert (found == expected[0]).all()
            else:
                lost += 1
                assert error.code == "backend.device-lost"
                assert code_of(lambda: logits(scorer, PIXELS[0])) == "score.closed"  # noqa: B023
            scorer.close()
            if not gpu.lost:
                gpu.release(address)
            gpu.assert_clean()
        place += 1
    assert lost >= (8, 10, 3)[earlier]
