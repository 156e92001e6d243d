"""What a chain of a GPU takes as network input: an array of the host, or one that lies on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from promptray.runtime.backends import Array
from promptray.runtime.backends.cuda import Cuda
from promptray.runtime.backends.cuda_resources import Stream
from promptray.runtime.backends.device_array import DeviceArray, device_array, require_on_device
from promptray.runtime.backends.host_input import host_input, require_shape


def network_input(pixels: Any, sides: Sequence[int], cuda: Cuda, arrival: Stream) -> Array | DeviceArray:
    """Return network input as it can be scored.

    Parameters
    ----------
    pixels : float32 (images, *sides)
        A NumPy array, or what :func:`device_array` takes.
    sides : sequence of int
        Channels, height and width that the model takes.
    cuda : Cuda
    arrival : Stream
        What a DLPack producer is asked to have the array ready on.

    Raises
    ------
    ScoringError
        ``score.input``; ``score.not-finite`` for pixels of the host. Nothing looks at the values of a device
        here.
    """
    if isinstance(pixels, np.ndarray):
        return host_input(pixels, sides)
    found = device_array(pixels, arrival.handle)
    require_shape(found.shape, sides)
    require_on_device(cuda.device_of(found.address))
    return found


def part_of(whole: Array | DeviceArray, first: int, images: int) -> Array | DeviceArray:
    """Return some of the images, where they lie."""
    if not isinstance(whole, DeviceArray):
        return whole[first : first + images]
    address = whole.address + first * whole.size // whole.shape[0]
    return DeviceArray(address, (images, *whole.shape[1:]), whole.stream, whole.owner)
