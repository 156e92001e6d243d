"""RLE Lossless (PS3.5 Annex G): byte planes of PackBits runs, decoded with a bound on the output.

Written here because pylibjpeg-rle panics on hostile segments and prints a trace, and pydicom's decoder
lets a small file expand without limit.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.dicom.walk import walk

_HEADER = 64
#: Control byte -> how far the next one is: a literal run, 128 which does nothing, a byte to repeat (G.3.1).
_STEPS = np.array([*range(2, 130), 1, *[2] * 127], np.uint8)
#: Bytes expanded at a time.
_CHUNK = 1 << 18


def decode_rle(frame: bytes, pixels: int, container: int) -> NDArray[np.unsignedinteger] | None:
    """Decode a single-sample RLE frame.

    Parameters
    ----------
    frame : bytes
        Header of 64 bytes and one segment per byte of the container, most significant first (G.2, G.5).
    pixels : int
        Rows times columns.
    container : int
        Bytes allocated per pixel: 1, 2 or 4.

    Returns
    -------
    ndarray of uint8, uint16 or uint32, shape (pixels,)
        None where the header is impossible or a segment ends early.
    """
    if len(frame) < _HEADER:
        return None
    count, *offsets = struct.unpack_from("<16I", frame)
    starts = [*offsets[:container], len(frame)]
    if count != container or starts != sorted(starts) or starts[0] < _HEADER:
        return None
    planes = np.empty((pixels, container), np.uint8)
    for number in range(container):
        plane = _unpack_bits(frame[starts[number] : starts[number + 1]], pixels)
        if len(plane) != pixels:
            return None
        planes[:, number] = plane
    return planes.view(f">u{container}").ravel().astype(f"=u{container}")


def _unpack_bits(segment: bytes, size: int) -> NDArray[np.uint8]:
    """Expand one segment (G.3.2), stopping at `size` bytes; shorter where the segment ends early."""
    parts: list[NDArray[np.uint8]] = []
    done, start, split = 0, 0, 1  # `split`: how often the first byte stands whose control was the last
    for first in range(0, len(segment), _CHUNK):
        octets = np.frombuffer(segment[first : first + _CHUNK], np.uint8)
        controls, beyond = walk(_STEPS[octets], start)
        times = np.ones(len(octets) + 1, np.int64)  # a literal stands once
        times[0] = split
        times[controls] = 0
        repeats = controls[octets[controls] > 128]
        times[repeats + 1] = 257 - octets[repeats].astype(np.int64)
        split, start = int(times[-1]), beyond - len(octets)
        expanded = int(times[:-1].sum())
        if done + expanded >= size:  # more than the picture needs is not made
            needed = int(np.searchsorted(np.cumsum(times[:-1]), size - done)) + 1
            parts.append(np.repeat(octets[:needed], times[:needed]))
            break
        parts.append(np.repeat(octets, times[:-1]))
        done += expanded
    return np.concatenate([np.empty(0, np.uint8), *parts])[:size]
