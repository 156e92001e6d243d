"""RLE Lossless (PS3.5 Annex G): byte planes of PackBits runs, decoded with a bound on the output.

Written here because pylibjpeg-rle panics on hostile segments and prints a trace, and pydicom's decoder
lets a small file expand without limit.
"""

from __future__ import annotations

import re
import struct

import numpy as np
from numpy.typing import NDArray

_HEADER = 64
_SOMETHING = re.compile(rb"[^\x80]")


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
        planes[:, number] = np.frombuffer(plane, np.uint8)
    return planes.view(f">u{container}").ravel().astype(f"=u{container}")


def _unpack_bits(segment: bytes, size: int) -> bytes:
    """Expand one segment (G.3.2), stopping at `size` bytes; shorter where the segment ends early."""
    plane, position, end = bytearray(), 0, len(segment)
    while len(plane) < size and position + 1 < end:
        control = segment[position]
        if control == 128:  # does nothing, however often it stands there
            something = _SOMETHING.search(segment, position)
            position = something.start() if something else end
        elif control < 128:
            plane += segment[position + 1 : position + 2 + control]
            position += 2 + control
        else:
            plane += segment[position + 1 : position + 2] * (257 - control)
            position += 2
    return bytes(plane[:size])
