"""What a chain of a GPU takes as network input: an array of the host, or one that lies on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from promptray.runtime.backends import Array
from promptray.runtime.backends.cuda import Cuda
from promptray.runtime.backends.cuda_resources import Stream
from promptray.runtime.backends.device_array import DeviceArray, device_array, require_on_device
from promptray.runtime.backends.finite import require_finite_pixels
from promptray.runtime.errors import ScoringError


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
    found: Array | DeviceArray
    if isinstance(pixels, np.ndarray):
        if pixels.dtype != np.float32:
            raise _unfit(sides, f"{pixels.dtype}")
        found = np.ascontiguousarray(pixels)
    else:
        found = device_array(pixels, arrival.handle)
    if found.shape[1:] != tuple(sides) or len(found.shape) != 4 or not found.shape[0]:
        raise _unfit(sides, str(list(found.shape)))
    if isinstance(found, DeviceArray):
        require_on_device(cuda.device_of(found.address))
    else:
        require_finite_pixels(found)
    return found


def part_of(whole: Array | DeviceArray, first: int, images: int) -> Array | DeviceArray:
    """Return some of the images, where they lie."""
    if not isinstance(whole, DeviceArray):
        return whole[first : first + images]
    address = whole.address + first * whole.size // whole.shape[0]
    return DeviceArray(address, (images, *whole.shape[1:]), whole.stream, whole.owner)


def _unfit(sides: Sequence[int], found: str) -> ScoringError:
    return ScoringError(
        "score.input",
        "network input of another shape or type than the model takes",
        expected=f"float32 (images, {', '.join(map(str, sides))})",
        found=found,
        cure="make it with scorer.prepare, or as the manifest's section `preprocessing` says",
    )
