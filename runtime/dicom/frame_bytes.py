"""Where the bytes of one frame are within the pixel data: a slice, or one or more fragments (PS3.5 A.4)."""

from __future__ import annotations

import struct

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame

from promptray.runtime.dicom import tags
from promptray.runtime.dicom.damage import broken
from promptray.runtime.dicom.facts import PixelFormat
from promptray.runtime.dicom.quiet import quietly

#: Transfer syntaxes whose frames follow each other without fragments.
NATIVE = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
    }
)

#: The tag (FFFE,E000) as two little-endian words.
_ITEM = 0xE000FFFE


def frame_bytes(dataset: Dataset, syntax: uid.UID, pixels: PixelFormat, index: int) -> bytes | memoryview:
    """Return the bytes of a frame (counted from 0), still encoded as the transfer syntax says.

    Of a native frame that is a view of the pixel data; of an encapsulated one, bytes.
    """
    data = tags.element_value(dataset, "PixelData")
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise broken("the pixel data are missing or not bytes")
    if syntax not in NATIVE:
        return _encapsulated(dataset, bytes(data), pixels, index)
    data = memoryview(bytes(data) if isinstance(data, bytearray) else data)
    if syntax == uid.ExplicitVRBigEndian and pixels.bits_allocated == 8 and _vr(dataset) == "OW":
        data = memoryview(np.frombuffer(data[: len(data) // 2 * 2], np.uint16).byteswap().tobytes())
    excess = len(data) - pixels.frames * pixels.frame_bytes
    if _undefined_length(dataset) or (excess >= 8 and data[:4] == struct.pack("<I", _ITEM)):
        # Fragments: their headers would become pixels and shift all that follow.
        raise broken("the pixel data are in fragments, and the transfer syntax says they are not")
    if excess < 0:
        raise broken("the pixel data end before the last row")
    # Some writers pad to more than an even length; a whole row or column too many: a size tag lies.
    if excess >= pixels.frame_bytes // max(pixels.rows, pixels.columns):
        raise broken("the pixel data hold more than rows, columns and frames allow")
    start = index * pixels.frame_bytes
    return data[start : start + pixels.frame_bytes]


def _undefined_length(dataset: Dataset) -> bool:
    return quietly(
        lambda: bool(dataset["PixelData"].is_undefined_length), lambda: tags.unreadable("PixelData")
    )


def _vr(dataset: Dataset) -> str:
    return quietly(lambda: str(dataset["PixelData"].VR), lambda: tags.unreadable("PixelData"))


def _encapsulated(dataset: Dataset, data: bytes, pixels: PixelFormat, index: int) -> bytes:
    table = tags.element_value(dataset, "ExtendedOffsetTable")
    if table is not None:
        return _by_extended_offsets(dataset, data, table, pixels.frames, index)
    frame: bytes = quietly(
        lambda: get_frame(data, index, number_of_frames=pixels.frames),
        lambda: broken("the compressed frame is missing or its fragments are damaged"),
    )
    return frame


def _by_extended_offsets(dataset: Dataset, data: bytes, table: object, frames: int, index: int) -> bytes:
    """Return the fragment that the Extended Offset Table names, one per frame (PS3.3 C.7.6.3.1.8)."""
    lengths = tags.element_value(dataset, "ExtendedOffsetTableLengths")
    if not (isinstance(table, bytes) and isinstance(lengths, bytes) and len(data) >= 8):
        raise broken("the extended offset table is incomplete")
    if not len(table) == len(lengths) == 8 * frames:
        raise broken("the extended offset table does not list every frame")
    ((offset,), (length,)) = (struct.unpack_from("<Q", each, 8 * index) for each in (table, lengths))
    first_fragment = 8 + int.from_bytes(data[4:8], "little")  # behind the basic offset table
    start = first_fragment + offset + 8
    item = data[start - 8 : start]
    if len(item) < 8 or length > len(data) - start:
        raise broken("the extended offset table points beyond the pixel data")
    tag, held = struct.unpack("<II", item)
    if tag != _ITEM or held != length + length % 2:
        raise broken("the extended offset table contradicts the fragments")
    return data[start : start + length]
