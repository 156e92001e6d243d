"""Network input that lies on the device already: DLPack and ``__cuda_array_interface__``.

Sources: the DLPack specification (``dlpack.h``, version 0.8 and its Python protocol) and version 3 of Numba's
CUDA array interface. Both say which stream the array is written on, so that scoring can wait for it.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

from promptray.runtime.errors import ScoringError

_CUDA, _CPU = 2, 1
_FLOAT = 2
_ITEM = 4  # bytes of a float32


class DeviceArray:
    """A float32 array of the device, contiguous, in rows.

    Attributes
    ----------
    address : int
    shape : tuple of int
    stream : int or None
        The stream it is written on, by its number; None: it is written.
    owner : object
        Keep it as long as the memory is used.
    """

    def __init__(self, address: int, shape: tuple[int, ...], stream: int | None, owner: object) -> None:
        self.address, self.shape, self.stream, self.owner = address, shape, stream, owner

    @property
    def size(self) -> int:
        """Bytes."""
        return _ITEM * math.prod(self.shape)


def device_array(pixels: Any, stream: int) -> DeviceArray:
    """Describe an array that another library holds on CUDA device 0.

    Parameters
    ----------
    pixels : object with ``__dlpack__`` or ``__cuda_array_interface__``
        DLPack is asked first: it lets the producer say what to wait for.
    stream : int
        The stream that a DLPack producer is asked to have the array ready on.

    Raises
    ------
    ScoringError
        ``score.input`` for any other object, device, type or layout, by its name.
    """
    if hasattr(pixels, "__dlpack__") and hasattr(pixels, "__dlpack_device__"):
        return _of_dlpack(pixels, stream)
    if hasattr(pixels, "__cuda_array_interface__"):
        return _of_interface(pixels)
    raise _refused("a NumPy array, or one with __dlpack__ or __cuda_array_interface__", type(pixels).__name__)


def require_on_device(device: int | None) -> None:
    """Refuse an array on another device than 0, which an array need not say, or on none (``score.input``)."""
    if device != 0:
        raise _refused("an array on CUDA device 0", "the host" if device is None else f"CUDA device {device}")


def _of_interface(pixels: Any) -> DeviceArray:
    facts = pixels.__cuda_array_interface__
    if facts.get("version", 0) < 3 or facts.get("stream", 0) == 0:
        # Before version 3 it does not say what to wait for: a guess would score a half-written picture.
        raise _refused(
            "version 3 of __cuda_array_interface__ with its stream", f"version {facts.get('version')}"
        )
    if facts["typestr"] != "<f4":
        raise _refused("float32 (<f4)", facts["typestr"])
    if facts.get("mask") is not None:
        raise _refused("an array without a mask", "a mask")
    shape = tuple(map(int, facts["shape"]))
    strides = facts.get("strides")
    _require_rows(shape, None if strides is None else tuple(int(each) // _ITEM for each in strides))
    return DeviceArray(int(facts["data"][0]), shape, facts["stream"], pixels)


class _Tensor(ctypes.Structure):
    """``DLTensor`` of dlpack.h, the first field of ``DLManagedTensor``."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype = ctypes.c_void_p
_pointer_of.argtypes = (ctypes.py_object, ctypes.c_char_p)


def _of_dlpack(pixels: Any, stream: int) -> DeviceArray:
    kind, number = (int(each) for each in pixels.__dlpack_device__())
    if (kind, number) != (_CUDA, 0):
        found = "the host: pass its NumPy array" if kind == _CPU else f"DLPack device {kind}, number {number}"
        raise _refused("an array on CUDA device 0", found)
    # The capsule is borrowed, not consumed: its own destructor gives the tensor back.
    try:
        capsule = pixels.__dlpack__(stream=stream)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:  # torch: one that requires a gradient
        line = (str(error).splitlines() or [""])[0][:200]
        raise _refused("an array that gives itself out", f"{type(error).__name__}: {line}") from error
    tensor = ctypes.cast(_pointer_of(capsule, b"dltensor"), ctypes.POINTER(_Tensor)).contents
    if (tensor.code, tensor.bits, tensor.lanes) != (_FLOAT, 32, 1):
        raise _refused("float32", f"DLPack type code {tensor.code}, {tensor.bits} bits, {tensor.lanes} lanes")
    shape = tuple(tensor.shape[: tensor.ndim])
    _require_rows(shape, tuple(tensor.strides[: tensor.ndim]) if tensor.strides else None)
    return DeviceArray((tensor.data or 0) + tensor.byte_offset, shape, stream, (pixels, capsule))


def _require_rows(shape: tuple[int, ...], strides: tuple[int, ...] | None) -> None:
    """Refuse an array that is not contiguous; the stride of a dimension of one says nothing."""
    expected = tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))
    if strides is not None and any(
        found != wanted and side > 1 for found, wanted, side in zip(strides, expected, shape, strict=True)
    ):
        raise _refused(f"contiguous, strides {list(expected)}", f"strides {list(strides)}")


def _refused(expected: str, found: str) -> ScoringError:
    return ScoringError(
        "score.input",
        "network input that cannot be scored from the device",
        expected=expected,
        found=found,
        cure="make it a contiguous float32 array (images, channels, height, width) on CUDA device 0",
    )
