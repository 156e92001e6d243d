"""Network input that another library holds on the GPU: understood and waited for, or refused."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from promptray.runtime.bundle import Bundle
from promptray.runtime.scorer import Scorer
from tests.fake_cuda import Gpu
from tests.runtime.backends.test_tensorrt import Simulated, code_of, error_of, open_on_gpu
from tests.simulated_engines import store_engines

PIXELS = np.random.default_rng(7).normal(size=(2, 3, 32, 32)).astype(np.float32)
LEGACY_STREAM = 1


class Interface:
    """An array of a library that offers ``__cuda_array_interface__``."""

    def __init__(self, address: int, shape: tuple[int, ...] = PIXELS.shape, **changes: Any) -> None:
        facts = {
            "shape": shape, "typestr": "<f4", "data": (address, False), "version": 3, "strides": None,
            "stream": None,
        }  # fmt: skip
        self.shape = shape
        self.__cuda_array_interface__ = {**facts, **changes}


class _Managed(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64),
        ("manager", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
    )  # fmt: skip


_capsule = ctypes.pythonapi.PyCapsule_New
_capsule.restype = ctypes.py_object
_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


class DLPack:
    """An array of a library that offers DLPack and writes it on a stream of its own."""

    def __init__(self, gpu: Gpu, address: int, shape: tuple[int, ...] = PIXELS.shape, **changes: Any) -> None:
        self.gpu, self.shape, self.asked = gpu, shape, []
        self._sides = (ctypes.c_int64 * len(shape))(*shape)
        strides = changes.pop("strides", None)
        self._strides = (ctypes.c_int64 * len(shape))(*strides) if strides else None
        facts = {
            "data": address, "device_type": 2, "device_id": 0, "ndim": len(shape), "code": 2, "bits": 32,
            "lanes": 1, "shape": self._sides, "strides": self._strides, "byte_offset": 0,
        }  # fmt: skip
        self.tensor = _Managed(**{**facts, **changes})

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.tensor.device_type, self.tensor.device_id

    def __dlpack__(self, stream: int) -> Any:
        """The producer makes the consumer's stream wait for its own, as the protocol has it."""
        self.asked.append(stream)
        bindings = self.gpu.bindings
        _, event = bindings.cudaEventCreateWithFlags(2)
        bindings.cudaEventRecord(event, LEGACY_STREAM)
        bindings.cudaStreamWaitEvent(stream, event, 0)
        self.event = event
        return _capsule(ctypes.addressof(self.tensor), b"dltensor", None)


@pytest.fixture
def scorer(miniature: Bundle, site: Path, tensorrt: Simulated) -> Iterator[Scorer]:
    store_engines(miniature, site, tensorrt[0])
    with open_on_gpu(miniature, site) as opened:
        yield opened


@pytest.fixture
def expected(miniature: Bundle) -> np.ndarray:
    with Scorer.open(miniature.path, site=None, threads=1) as cpu:
        return cpu.submit_pixels(PIXELS).result().heads[0].logits


@pytest.fixture
def late(tensorrt: Simulated) -> Iterator[int]:
    """The address of pixels that another library's stream has still to write."""
    gpu, _ = tensorrt
    address = gpu.array(np.full(PIXELS.shape, 7.0, np.float32))
    gpu.queue(LEGACY_STREAM, lambda: gpu.write(address, PIXELS))
    yield address
    gpu.bindings.cudaStreamSynchronize(LEGACY_STREAM)
    gpu.release(address)


def logits(scorer: Scorer, pixels: Any) -> np.ndarray:
    return scorer.submit_pixels(pixels).result().heads[0].logits


def test_an_array_is_waited_for_on_the_stream_its_interface_names(
    scorer: Scorer, late: int, expected: np.ndarray
) -> None:
    assert (logits(scorer, Interface(late, stream=LEGACY_STREAM)) == expected).all()


def test_without_a_stream_nothing_is_waited_for(scorer: Scorer, late: int, expected: np.ndarray) -> None:
    """The producer says that the array is there; the simulator shows that it is taken at its word."""
    assert (logits(scorer, Interface(late)) != expected).any()


def test_a_dlpack_producer_is_asked_to_have_it_ready(
    scorer: Scorer, late: int, expected: np.ndarray, tensorrt: Simulated
) -> None:
    gpu, _ = tensorrt
    array = DLPack(gpu, late)
    del array.shape  # DLPack asks for none
    assert (logits(scorer, array) == expected).all()
    assert len(array.asked) == 1
    assert array.asked[0] > 2, "a stream of its own"
    gpu.bindings.cudaEventDestroy(array.event)


def test_an_offset_and_strides_of_rows_are_understood(
    scorer: Scorer, tensorrt: Simulated, expected: np.ndarray
) -> None:
    gpu, _ = tensorrt
    address = gpu.array(np.concatenate([np.zeros(64, np.float32), PIXELS.reshape(-1)]))
    offset = DLPack(gpu, address, byte_offset=256, strides=(3072, 1024, 32, 1))
    strided = Interface(address + 256, strides=(12288, 4096, 128, 4))
    for array in (offset, strided):
        assert (logits(scorer, array) == expected).all()
    gpu.bindings.cudaEventDestroy(offset.event)
    gpu.release(address)


def test_pixels_that_are_no_numbers_are_no_score(scorer: Scorer, tensorrt: Simulated) -> None:
    """Also where the engine would take them for 0."""
    gpu, library = tensorrt
    library.hides_nan = True
    pixels = PIXELS.copy()
    pixels[1, 2, 31, 31] = np.nan
    address = gpu.array(pixels)
    pending = scorer.submit_pixels(Interface(address))
    assert code_of(pending.result) == "score.not-finite"
    gpu.release(address)
    assert logits(scorer, PIXELS).size, "the host's pixels are not looked at twice"


@pytest.mark.parametrize(("device", "found"), [(1, "CUDA device 1"), (None, "the host")])
def test_an_array_that_is_elsewhere_is_refused(
    scorer: Scorer, tensorrt: Simulated, device: int | None, found: str
) -> None:
    gpu, _ = tensorrt
    address = PIXELS.ctypes.data if device is None else gpu.array(PIXELS, device=device)
    error = error_of(lambda: scorer.submit_pixels(Interface(address)))
    assert error
    assert (error.code, error.found) == ("score.input", found)
    if device is not None:
        gpu.release(address)


def test_an_array_that_does_not_give_itself_out_is_refused(scorer: Scorer, tensorrt: Simulated) -> None:
    """As torch's does not that requires a gradient."""

    class Guarded(DLPack):
        def __dlpack__(self, stream: int) -> Any:
            raise BufferError("Can't export tensors that require gradient")

    error = error_of(lambda: scorer.submit_pixels(Guarded(tensorrt[0], 1 << 40)))
    assert error
    assert error.code == "score.input"
    assert "require gradient" in str(error.found)


def test_more_images_than_the_engine_takes(
    miniature: Bundle, tmp_path: Path, tensorrt: Simulated, expected: np.ndarray
) -> None:
    gpu, _ = tensorrt
    store_engines(miniature, tmp_path / "other", gpu, most={"images": 2})
    address = gpu.array(np.concatenate([PIXELS, PIXELS[:1]]))
    with open_on_gpu(miniature, tmp_path / "other") as scorer:
        found = logits(scorer, Interface(address, (3, 3, 32, 32)))
    assert (found[:2] == expected).all()
    assert found[2] == pytest.approx(expected[0], abs=1e-5)
    gpu.release(address)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"typestr": "<f8"}, "<f8"),
        ({"typestr": "<f2"}, "<f2"),
        ({"version": 2}, "version 2"),
        ({"stream": 0}, "version 3"),
        ({"mask": object()}, "a mask"),
        ({"strides": (12288, 4, 384, 12)}, "strides [3072, 1, 96, 3]"),
        ({"shape": (2, 32, 32, 3)}, "[2, 32, 32, 3]"),
        ({"shape": (3, 32, 32)}, "[3, 32, 32]"),
    ],
)
def test_an_interface_of_anything_else_is_refused_by_name(
    scorer: Scorer, changes: dict[str, Any], found: str
) -> None:
    error = error_of(lambda: scorer.submit_pixels(Interface(1 << 40, **changes)))
    assert error
    assert error.code == "score.input"
    assert found in str(error.found)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"device_type": 1}, "the host: pass its NumPy array"),
        ({"device_type": 10}, "DLPack device 10"),
        ({"device_id": 1}, "number 1"),
        ({"bits": 16}, "16 bits"),
        ({"code": 0}, "type code 0"),
        ({"lanes": 4}, "4 lanes"),
        ({"strides": (3072, 1, 96, 3)}, "strides [3072, 1, 96, 3]"),
    ],
)
def test_dlpack_of_anything_else_is_refused_by_name(
    scorer: Scorer, tensorrt: Simulated, changes: dict[str, Any], found: str
) -> None:
    array = DLPack(tensorrt[0], 1 << 40, **changes)
    error = error_of(lambda: scorer.submit_pixels(array))
    assert error
    assert error.code == "score.input"
    assert found in str(error.found)
    if array.asked:
        tensorrt[0].bindings.cudaEventDestroy(array.event)


@pytest.mark.parametrize(
    "pixels",
    [[[1.0]], object(), SimpleNamespace(shape=(1, 3, 32, 32))],
    ids=["list", "object", "only a shape"],
)
def test_what_is_no_array_is_refused(scorer: Scorer, miniature: Bundle, pixels: Any) -> None:
    assert code_of(lambda: scorer.submit_pixels(pixels)) == "score.input"
    with Scorer.open(miniature.path, site=None) as cpu:
        assert code_of(lambda: cpu.submit_pixels(pixels)) == "score.input"


def test_a_backend_of_the_host_refuses_arrays_of_a_device(miniature: Bundle) -> None:
    with Scorer.open(miniature.path, site=None) as cpu:
        assert code_of(lambda: cpu.submit_pixels(Interface(1 << 40))) == "score.input"
