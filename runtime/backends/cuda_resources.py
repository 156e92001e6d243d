"""What a GPU lends: memory, streams, events, recorded work. :class:`Cuda` makes it and takes it back."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Memory:
    """Memory of the device.

    Attributes
    ----------
    address : int
    size : int
        Bytes.
    """

    def __init__(self, address: int, size: int) -> None:
        self.address, self.size = address, size


class Pinned(Memory):
    """Memory of the host that the device copies from and to by itself.

    Attributes
    ----------
    bytes : uint8 array, (size,)
        A view of it.
    """

    def __init__(self, address: int, size: int) -> None:
        super().__init__(address, size)
        self.bytes: NDArray[np.uint8] = np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(address))


class Stream:
    """A queue of work on the device, in order. Attribute `handle`: its number, as TensorRT takes it."""

    def __init__(self, own: Any) -> None:
        self.own, self.handle = own, int(own)


class Event:
    """A place in a stream's queue."""

    def __init__(self, own: Any) -> None:
        self.own = own


class Recorded:
    """Work that was recorded once and is launched as a whole: a CUDA graph."""

    def __init__(self, own: Any) -> None:
        self.own = own


class Kept:
    """A library's object that holds resources of the device; `value` is None once they were given back."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def let_go(self) -> None:
        """Drop it: its destructor gives the resources back."""
        self.value = None
