"""Tensors side by side in one piece of memory, so that one copy moves all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.backends import Array

Shape = tuple[int, ...]
#: Bytes: what TensorRT asks of every tensor's address.
ALIGNMENT = 256


class Layout:
    """Where tensors lie.

    Parameters
    ----------
    tensors : mapping of str to (shape, dtype)

    Attributes
    ----------
    size : int
        Bytes of the memory.
    offsets : dict of str to int
    """

    def __init__(self, tensors: Mapping[str, tuple[Shape, np.dtype[np.generic]]], first: int = 0) -> None:
        self._tensors, self.offsets, self.size = dict(tensors), {}, first
        for name, (shape, dtype) in self._tensors.items():
            self.offsets[name] = self.size
            self.size += -(-math.prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT

    def views(self, content: NDArray[np.uint8]) -> dict[str, Array]:
        """Return the tensors as views of the memory's content."""
        found = {}
        for name, (shape, dtype) in self._tensors.items():
            first = self.offsets[name]
            own = content[first : first + math.prod(shape) * dtype.itemsize]
            found[name] = own.view(dtype).reshape(shape)
        return found
