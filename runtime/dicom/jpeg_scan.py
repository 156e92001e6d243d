"""A JPEG frame of one component and one Huffman-coded scan (ITU-T T.81, annexes B, C, E and F.2.2).

What lossless JPEG and JPEG of 12 bits have in common. Every table, marker and length is checked, and the
entropy-coded data must end exactly where the pixels do: that is the only checksum JPEG has.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.dicom.damage import broken
from promptray.runtime.jpeg_markers import FRAMES, START_OF_SCAN, segments

_HUFFMAN, _QUANTISATION, _RESTART_INTERVAL = 0xC4, 0xDB, 0xDD
#: A marker within or after entropy-coded data, where 0xFF of the data is followed by 0 (B.1.1.5).
_MARKER = re.compile(rb"\xff([^\x00\xff])")
_END_OF_IMAGE = b"\xd9"

#: Each restart interval costs some 50 microseconds; real films have one per row of blocks, or none.
MAX_INTERVALS = 40_000
#: The step over a window that begins with no code, which is found out after the walk.
INVALID = 255


@dataclass(frozen=True, eq=False)
class HuffmanTable:
    """A Huffman code, tabulated by the 16 bits that follow in the stream.

    Attributes
    ----------
    lengths : ndarray of uint8, shape (65536,)
        Bits of the code that the window begins with, 1 to 16; 0 where it begins with none.
    symbols : ndarray of uint8, shape (65536,)
        The symbol of that code.
    """

    lengths: NDArray[np.uint8]
    symbols: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Scan:
    """The only scan of a frame of one component, with all that its segments define.

    Attributes
    ----------
    process : int
        Low byte of the frame marker.
    precision, rows, columns : int
        Of the frame header (B.2.2).
    restart_interval : int
        In MCUs (B.2.4.4); 0 where there are no restart markers.
    dc_table, ac_table : int
        Destinations of the Huffman tables (B.2.3).
    spectral_start, spectral_end, approximation : int
        Ss (the predictor of lossless JPEG), Se, and Ah and Al in one byte (Al is the point transform).
    quantisation : ndarray of uint16, shape (64,), or None
        In zigzag order.
    tables : dict
        (class, destination) to Huffman table.
    entropy : bytes
        What follows the scan header, end marker included.
    """

    process: int
    precision: int
    rows: int
    columns: int
    restart_interval: int
    dc_table: int
    ac_table: int
    spectral_start: int
    spectral_end: int
    approximation: int
    quantisation: NDArray[np.uint16] | None
    tables: dict[tuple[int, int], HuffmanTable]
    entropy: bytes

    def table(self, kind: int) -> HuffmanTable:
        """Return the scan's DC (0) or AC (1) Huffman table."""
        found = self.tables.get((kind, self.ac_table if kind else self.dc_table))
        if found is None:
            raise broken("the JPEG scan names a Huffman table that is not there")
        return found

    def intervals(self, count: int) -> list[bytes]:
        """Return the entropy-coded data of the `count` restart intervals, byte stuffing removed."""
        if count > MAX_INTERVALS:
            raise broken(f"the JPEG scan has more than {MAX_INTERVALS} restart intervals")
        parts: list[bytes] = []
        position = 0
        for marker in _MARKER.finditer(self.entropy):
            part = self.entropy[position : marker.start()].rstrip(b"\xff")  # fill bytes (B.1.1.2)
            parts.append(part.replace(b"\xff\0", b"\xff"))
            expected = _END_OF_IMAGE if len(parts) == count else bytes([0xD0 + (len(parts) - 1) % 8])
            if marker[1] != expected:
                raise broken("a marker within the JPEG scan is missing, damaged or out of order")
            if len(parts) == count:
                return parts
            position = marker.end()
        raise broken("the JPEG scan ends early")


def read_scan(frame: bytes) -> Scan:
    """Read the segments of a frame of one component, up to its scan.

    Raises
    ------
    ImageError
        `image.broken` where a segment is damaged, missing or contradicts another.
    """
    tables: dict[tuple[int, int], HuffmanTable] = {}
    quantisers: dict[int, NDArray[np.uint16]] = {}
    header, restart_interval = b"", 0
    for marker, body, end in segments(frame):
        if marker == _HUFFMAN:
            tables |= _huffman_tables(body)
        elif marker == _QUANTISATION:
            quantisers |= _quantisation_tables(body)
        elif marker == _RESTART_INTERVAL and len(body) == 2:
            restart_interval = int.from_bytes(body, "big")
        elif marker in FRAMES and not header:
            header = bytes([marker]) + body
        elif marker == START_OF_SCAN and len(header) == 10 and len(body) == 6:
            process, precision, rows, columns, components, component, _, quantiser = struct.unpack(
                ">BBHHBBBB", header
            )
            if not rows or not columns or components != 1 or body[:2] != bytes([1, component]):
                break
            return Scan(
                process=process,
                precision=precision,
                rows=rows,
                columns=columns,
                restart_interval=restart_interval,
                dc_table=body[2] >> 4,
                ac_table=body[2] & 15,
                spectral_start=body[3],
                spectral_end=body[4],
                approximation=body[5],
                quantisation=quantisers.get(quantiser),
                tables=tables,
                entropy=frame[end:],
            )
        elif marker in FRAMES or marker in (START_OF_SCAN, _RESTART_INTERVAL):
            break
    raise broken("the JPEG headers are damaged, or not those of one grey component")


def _huffman_tables(body: bytes) -> dict[tuple[int, int], HuffmanTable]:
    tables = {}
    while body:
        counts = np.frombuffer(body[1:17].ljust(16, b"\0"), np.uint8)
        values = np.frombuffer(body[17 : 17 + int(counts.sum())], np.uint8)
        lengths = np.repeat(np.arange(1, 17, dtype=np.uint8), counts)
        # Codes ascend with their length (C.2), so from window 0 on each fills the next 2**(16 - length).
        windows = 1 << (16 - lengths.astype(np.int64))
        destination = body[0] >> 4, body[0] & 15
        if body[0] & 0xEC or destination in tables:
            raise broken("a Huffman table of the JPEG frame has an impossible or repeated destination")
        if not 0 < values.size == lengths.size <= 256 or windows.sum() > 65536:
            raise broken("a Huffman table of the JPEG frame is impossible")
        tables[body[0] >> 4, body[0] & 15] = HuffmanTable(_spread(lengths, windows), _spread(values, windows))
        body = body[17 + values.size :]
    return tables


def _spread(each: NDArray[np.uint8], windows: NDArray[np.int64]) -> NDArray[np.uint8]:
    table = np.zeros(65536, np.uint8)
    table[: windows.sum()] = np.repeat(each, windows)
    return table


def _quantisation_tables(body: bytes) -> dict[int, NDArray[np.uint16]]:
    tables = {}
    while body:
        deep, destination = body[0] >> 4, body[0] & 15
        data = body[1 : 65 + 64 * deep]
        if deep > 1 or destination > 3 or destination in tables or len(data) != 64 + 64 * deep:
            raise broken("a quantisation table of the JPEG frame is impossible")
        tables[destination] = np.frombuffer(data, ">u2" if deep else "u1").astype(np.uint16)
        body = body[1 + len(data) :]
    return tables


def bit_windows(data: bytes, first: int, size: int) -> NDArray[np.uint16]:
    """Return, for every bit of `size` bytes from `first` on, the 16 bits that begin there.

    What lies beyond the data counts as zeros.
    """
    octets = np.frombuffer(data[first : first + size + 2].ljust(size + 2, b"\0"), np.uint8).astype(np.uint32)
    joined = octets[:-2] << 16 | octets[1:-1] << 8 | octets[2:]
    windows: NDArray[np.uint16] = (joined[:, None] >> np.arange(8, 0, -1, dtype=np.uint32)).astype(np.uint16)
    return windows.ravel()


def signed_values(windows: NDArray[np.uint16], starts: Any, sizes: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the numbers of `sizes` bits that begin at bits `starts` (RECEIVE and EXTEND of F.2.2.1)."""
    bits = windows[starts].astype(np.int32) >> (16 - sizes)
    return np.where(bits < 1 << sizes >> 1, bits - (1 << sizes) + 1, bits)


def check_end(data: bytes, bit: int) -> None:
    """Refuse an interval whose symbols do not end in its last byte."""
    if (bit + 7) // 8 != len(data):
        raise broken("the JPEG scan is damaged: its data do not end where its pixels do")
