"""What goes from graph to graph in ONNX Runtime's memory, looked through for what is no number.

What lies on the device is looked through there, and only flags come to the host. ONNX Runtime has done its
work when a run returns, so a stream of one's own needs no waiting for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort

from promptray.runtime.backends.cuda import Cuda
from promptray.runtime.backends.cuda_resources import Memory, Pinned
from promptray.runtime.backends.device_array import DeviceArray
from promptray.runtime.backends.finite import require_finite
from promptray.runtime.backends.finite_check import FLAG, FiniteCheck
from promptray.runtime.backends.not_finite import not_finite, pixels_not_finite
from promptray.runtime.deadline import Deadline

_FLOAT = np.dtype(np.float32)
_TYPES: dict[str, np.dtype[Any]] = {"tensor(float)": _FLOAT, "tensor(float16)": np.dtype(np.float16)}
_WHOLE_NUMBERS = np.dtype(np.int64)


class DeviceLooks:
    """Looks through pixels and features on the device. One call at a time.

    Parameters
    ----------
    cuda : Cuda

    Attributes
    ----------
    arrival : Stream
        What a producer of pixels is asked to have them ready on. Nothing else is done there: a call that
        gave up waiting for its producer leaves it for others to find.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda, self._finite = cuda, FiniteCheck(cuda)
        self.arrival, self._stream, self._event = cuda.stream(), cuda.stream(), cuda.event()
        self._flags: tuple[Memory, Pinned] | None = None

    def wait_for(self, pixels: DeviceArray, limit: Deadline) -> None:
        """Return when pixels are written: the provider's own stream would not wait for their producer."""
        if pixels.stream is None:
            return
        self._cuda.follow(self.arrival, pixels.stream, self._event)
        if limit.bounded:
            limit.wait(lambda: self._cuda.is_done(self.arrival), "before the pixels were written")
        else:
            self._cuda.wait(self.arrival)

    def copy(self, to: int, pixels: DeviceArray) -> None:
        """Copy pixels within the device, and wait."""
        self._cuda.copy_across(Memory(to, pixels.size), pixels.address, pixels.size, self._stream)
        self._cuda.wait(self._stream)

    def require_finite(self, pixels: DeviceArray | None, features: Mapping[str, ort.OrtValue]) -> None:
        """Refuse pixels and features that hold NaN or infinity.

        Parameters
        ----------
        pixels : DeviceArray or None
            None: they came from the host, where they were looked at.
        features : mapping of str to OrtValue

        Raises
        ------
        ScoringError
            ``score.not-finite``, naming the output; ``backend.*``.
        """
        memory, found = self._room(1 + len(features))
        self._cuda.clear(memory.address, memory.size, self._stream)
        if pixels is not None:
            self._look(pixels.address, pixels.shape, _FLOAT, memory.address)
        for number, value in enumerate(features.values(), 1):
            dtype = _TYPES.get(value.data_type(), _WHOLE_NUMBERS)
            self._look(value.data_ptr(), tuple(value.shape()), dtype, memory.address + number * FLAG.itemsize)
        self._cuda.copy_out(found, memory, memory.size, self._stream)
        self._cuda.wait(self._stream)
        of_pixels, *of_features = found.bytes.view(FLAG)
        if of_pixels:
            raise pixels_not_finite()
        for name, flag in zip(features, of_features, strict=False):
            if flag:
                raise not_finite(name, "image")

    def _look(self, address: int, shape: tuple[int, ...], dtype: np.dtype[np.generic], flag: int) -> None:
        self._finite.enqueue(address, shape, dtype, flag, self._stream)

    def _room(self, flags: int) -> tuple[Memory, Pinned]:
        """Return memory for flags: what was there, or more. The stream has no work here."""
        size = flags * FLAG.itemsize
        if self._flags is None or self._flags[0].size < size:
            self._flags = self._cuda.memory(size), self._cuda.pinned(size)
        return self._flags


class HostLooks(DeviceLooks):
    """Looks through features of a provider that keeps them in the host's memory."""

    def require_finite(self, pixels: DeviceArray | None, features: Mapping[str, ort.OrtValue]) -> None:
        """Refuse as :class:`DeviceLooks`."""
        if pixels is not None:
            super().require_finite(pixels, {})
        require_finite({name: value.numpy() for name, value in features.items()}, "image")
