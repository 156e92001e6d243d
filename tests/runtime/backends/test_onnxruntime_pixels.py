"""ONNX Runtime on arrays of the device: bound where they lie, never recorded, looked through on the device.

The graphs run on the processor's provider: what is the device's memory here is lent by the host.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from promptray.runtime.backends import GpuOptions
from promptray.runtime.backends.cuda import Cuda
from promptray.runtime.backends.device_array import DeviceArray
from promptray.runtime.backends.onnxruntime_looks import DeviceLooks
from promptray.runtime.bundle import Bundle
from promptray.runtime.deadline import Deadline
from promptray.runtime.errors import ScoringError
from promptray.runtime.scorer import Scorer
from tests.fake_cuda import Gpu
from tests.runtime.backends.test_device_array import LEGACY_STREAM, DLPack, Interface
from tests.runtime.backends.test_tensorrt import code_of, error_of

PIXELS = np.random.default_rng(7).normal(size=(2, 3, 32, 32)).astype(np.float32)


def aligned(values: np.ndarray, offset: int = 0) -> np.ndarray:
    """A copy whose address is a multiple of 256, and so many bytes more."""
    whole = np.zeros(values.nbytes + 512, np.uint8)
    first = -whole.ctypes.data % 256 + offset
    found = whole[first : first + values.nbytes].view(values.dtype).reshape(values.shape)
    found[...] = values
    return found


def logits(scorer: Scorer, pixels: Any) -> np.ndarray:
    return scorer.submit_pixels(pixels).result().heads[0].logits


@pytest.fixture
def scorer(miniature: Bundle, site: Path, gated: Gpu) -> Iterator[Scorer]:
    with Scorer.open(miniature.path, site=site, backend="onnxruntime-cuda") as opened:
        yield opened


@pytest.fixture
def lent(gated: Gpu) -> Iterator[np.ndarray]:
    values = aligned(PIXELS)
    gated.lend(values)
    yield values
    gated.release(values.ctypes.data)


@pytest.fixture
def expected(miniature: Bundle) -> np.ndarray:
    with Scorer.open(miniature.path, site=None, threads=1) as cpu:
        return logits(cpu, PIXELS)


def test_it_reads_the_callers_memory_and_records_nothing_of_it(
    scorer: Scorer, lent: np.ndarray, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits(scorer, PIXELS)
    bound, numbers = [], []
    bind, run = ort.IOBinding.bind_input, ort.InferenceSession.run_with_iobinding

    def note_binding(self: Any, *given: Any) -> None:
        bound.append(given)
        bind(self, *given)

    def note_run(self: Any, binding: Any, options: Any) -> None:
        numbers.append(int(options.get_run_config_entry("gpu_graph_id")))
        run(self, binding, options)

    monkeypatch.setattr(ort.IOBinding, "bind_input", note_binding)
    monkeypatch.setattr(ort.InferenceSession, "run_with_iobinding", note_run)
    assert (logits(scorer, Interface(lent.ctypes.data)) == expected).all()
    assert bound == [("pixels", "cpu", 0, np.float32, (2, 3, 32, 32), lent.ctypes.data)]
    assert numbers[0] == -1, "a recorded graph has fixed addresses"
    assert all(number > 0 for number in numbers[1:]), "heads read where features always are"
    assert (logits(scorer, PIXELS[::-1]) == expected[::-1]).all()
    assert len(bound) == 1, "pixels of the host have a place of their own"
    before = logits(scorer, Interface(lent.ctypes.data))
    lent[...] = PIXELS[::-1]
    assert (logits(scorer, Interface(lent.ctypes.data)) == expected[::-1]).all()
    assert (before == expected).all(), "answers stay"


def test_it_waits_for_the_producer(
    scorer: Scorer, lent: np.ndarray, gated: Gpu, expected: np.ndarray
) -> None:
    for array in (Interface(lent.ctypes.data, stream=LEGACY_STREAM), DLPack(gated, lent.ctypes.data)):
        lent[...] = 7
        gated.queue(LEGACY_STREAM, lambda: gated.write(lent.ctypes.data, PIXELS))
        assert (logits(scorer, array) == expected).all()
    gated.bindings.cudaEventDestroy(array.event)


def test_a_deadline_passes_while_the_producer_is_at_work(
    scorer: Scorer,
    lent: np.ndarray,
    gated: Gpu,
) -> None:
    gated.queue(LEGACY_STREAM, lambda: None)
    gated.hangs = True
    array = Interface(lent.ctypes.data, stream=LEGACY_STREAM)
    assert code_of(lambda: scorer.submit_pixels(array, deadline=0.01).result()) == "score.deadline"
    gated.hangs = False
    assert logits(scorer, array).size


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_pixels_that_are_no_numbers_are_no_score(
    scorer: Scorer, lent: np.ndarray, expected: np.ndarray, value: float
) -> None:
    lent[1, 2, 31, 31] = value
    error = error_of(lambda: logits(scorer, Interface(lent.ctypes.data)))
    assert error
    assert (error.code, error.artefact) == ("score.not-finite", "pixels")
    lent[...] = PIXELS
    assert (logits(scorer, Interface(lent.ctypes.data)) == expected).all()


def test_what_no_kernel_may_read_in_place_is_copied_within_the_device(
    scorer: Scorer,
    gated: Gpu,
    expected: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copied = []

    def copy(self: Cuda, to: Any, source: int, size: int, stream: Any) -> None:
        copied.append(source)
        ctypes.memmove(to.address, source, size)

    monkeypatch.setattr(Cuda, "copy_across", copy)
    values = aligned(PIXELS, offset=16)
    gated.lend(values)
    assert (logits(scorer, Interface(values.ctypes.data)) == expected).all()
    assert copied == [values.ctypes.data]
    values[0, 0, 0, 0] = np.nan
    assert code_of(lambda: logits(scorer, Interface(values.ctypes.data))) == "score.not-finite"
    gated.release(values.ctypes.data)


def test_more_images_than_a_call_takes(scorer: Scorer, gated: Gpu, miniature: Bundle) -> None:
    pixels = np.random.default_rng(3).normal(size=(11, 3, 32, 32)).astype(np.float32)
    values = aligned(pixels)
    gated.lend(values)
    found = logits(scorer, Interface(values.ctypes.data, pixels.shape))
    assert (found == logits(scorer, pixels)).all()
    gated.release(values.ctypes.data)


@pytest.mark.parametrize("device", [None, 1])
def test_an_array_that_is_elsewhere_is_refused(
    scorer: Scorer,
    gated: Gpu,
    device: int | None,
) -> None:
    address = PIXELS.ctypes.data if device is None else gated.array(PIXELS, device=device)
    assert code_of(lambda: logits(scorer, Interface(address))) == "score.input"


class Value:
    """An OrtValue of the device."""

    def __init__(self, address: int, values: np.ndarray) -> None:
        self._address, self._values = address, values

    def data_ptr(self) -> int:
        return self._address

    def shape(self) -> list[int]:
        return list(self._values.shape)

    def data_type(self) -> str:
        return {"f4": "tensor(float)", "f2": "tensor(float16)", "i8": "tensor(int64)"}[
            self._values.dtype.str[1:]
        ]


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_features_on_the_device_are_looked_through_there(gated: Gpu, kind: type[np.floating]) -> None:
    cuda = Cuda()
    looks = DeviceLooks(cuda)
    plain, spoilt = np.ones((2, 300), kind), np.ones((3, 5), kind)
    spoilt[2, 4] = np.nan
    numbers = np.full(9, -1, np.int64)  # whose bits would be those of NaN
    places = [gated.array(each) for each in (plain, numbers, spoilt)]
    values: list[Any] = [
        Value(address, each) for address, each in zip(places, (plain, numbers, spoilt), strict=True)
    ]
    looks.require_finite(None, {"tokens": values[0], "counts": values[1]})
    before = gated.calls.copy()
    with pytest.raises(ScoringError) as refusal:
        looks.require_finite(None, dict(zip(("tokens", "counts", "pooled"), values, strict=True)))
    assert (refusal.value.code, refusal.value.artefact) == ("score.not-finite", "image graph, output pooled")
    made = gated.calls - before
    assert (made["cudaMemcpyAsync"], made["cuLaunchKernel"], made["cudaStreamSynchronize"]) == (1, 2, 1)
    looks.require_finite(None, {"tokens": values[0]})
    del looks, refusal
    cuda.close()
    for address in places:
        gated.release(address)


def test_a_producer_that_hangs_holds_up_nobody_else(gated: Gpu) -> None:
    """A call that gave up leaves nothing behind that features of the next one would wait for."""
    cuda = Cuda()
    looks = DeviceLooks(cuda)
    ended: list[int] = []
    gated.queue(LEGACY_STREAM, lambda: ended.append(1))
    address = gated.array(PIXELS)
    gated.hangs = True
    with pytest.raises(ScoringError, match=r"score\.deadline"):
        looks.wait_for(DeviceArray(address, PIXELS.shape, LEGACY_STREAM, None), Deadline(0.01, None))
    value: Any = Value(address, PIXELS)
    looks.require_finite(None, {"tokens": value})
    assert not ended
    gated.hangs = False
    looks.wait_for(DeviceArray(address, PIXELS.shape, LEGACY_STREAM, None), Deadline(None, None))
    assert ended
    del looks
    cuda.close()
    gated.release(address)


def test_a_kernel_that_is_wrong_refuses_the_device(miniature: Bundle, site: Path, gated: Gpu) -> None:
    gated.kernels_are_wrong = True
    error = error_of(
        lambda: Scorer.open(
            miniature.path, site=site, backend="onnxruntime-cuda", gpu=GpuOptions(cuda_graphs=False)
        )
    )
    assert error
    assert error.code == "backend.failed"
    assert gated.held == 0
