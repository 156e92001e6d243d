"""The marker segments of JPEG-family code streams: what must be known before any decoder is trusted.

JPEG (ISO 10918-1), JPEG lossless, JPEG-LS (ISO 14495-1) share this structure; JPEG 2000 has its own
(:mod:`promptray.runtime.dicom.j2k_stream`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_END, _EXIF = 0xD9, 0xE1
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
START_OF_SCAN = 0xDA
#: Frame markers: SOF0 to SOF15 without the three that are tables (T.81 B.1.1.3), and JPEG-LS.
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}

#: Segments and fill bytes before the first scan; real files have fewer than a hundred.
MAX_SEGMENTS = 1000

#: A progressive file with thousands of scans takes hours to decode; real ones have about ten.
MAX_SCANS = 100


@dataclass(frozen=True)
class FrameHeader:
    """What a code stream says of itself before its first scan.

    `process` is the low byte of the frame marker (0xC0 baseline, 0xC2 progressive, 0xC3 lossless,
    0xF7 JPEG-LS); `exif` is the payload of the first Exif segment, or empty.
    """

    process: int
    precision: int
    rows: int
    columns: int
    components: int
    exif: bytes


class Segment(NamedTuple):
    """A marker segment: the low byte of its marker, its payload, and where in the stream it ends."""

    marker: int
    body: bytes
    end: int


def segments(data: bytes) -> Iterator[Segment]:
    """Yield the marker segments up to the first scan header, inclusive.

    Ends early where markers are broken, or are more than any real file has.
    """
    position = 2 if data[:2] == b"\xff\xd8" else len(data)
    for _ in range(MAX_SEGMENTS):
        if position + 4 > len(data) or data[position] != 0xFF:
            return
        marker = data[position + 1]
        if marker == 0xFF or marker in _STANDALONE:
            position += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        body = data[position + 4 : position + 2 + length]
        if length < 2 or len(body) != length - 2 or marker == _END:
            return
        position += 2 + length
        yield Segment(marker, body, position)
        if marker == START_OF_SCAN:
            return


def read_frame_header(data: bytes) -> FrameHeader | None:
    """Return the frame header of a JPEG or JPEG-LS code stream; None where its markers are broken."""
    exif = b""
    for marker, body, _ in segments(data):
        if marker in FRAMES:
            if len(body) < 6:
                return None
            precision, rows, columns, components = struct.unpack(">BHHB", body[:6])
            return FrameHeader(marker, precision, rows, columns, components, exif)
        if marker == _EXIF and body.startswith(b"Exif\0\0") and not exif:
            exif = body[6:]
    return None


def exif_orientation(exif: bytes) -> int:
    """Return the orientation (tag 0x0112 of the first directory) of a TIFF block; 1 where there is none."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return 1
    (directory,) = struct.unpack_from(order + "I", exif, 4)
    if directory + 2 > len(exif):
        return 1
    (entries,) = struct.unpack_from(order + "H", exif, directory)
    for entry in range(directory + 2, min(directory + 2 + 12 * entries, len(exif) - 11), 12):
        tag, _, _, value = struct.unpack_from(order + "HHIH", exif, entry)
        if tag == 0x0112:
            return value if 1 <= value <= 8 else 1
    return 1
