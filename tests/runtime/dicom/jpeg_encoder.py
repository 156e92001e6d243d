"""JPEG frames of one component for the tests: lossless, and extended sequential of 12 bits (ITU-T T.81).

Written sample by sample from the standard, with every parameter free, so that it shares nothing with the
decoders under test; the tests compare it with GDCM, too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Number of codes of each length, 1 to 16 bits (B.2.4.2), for up to 17 symbols: all alike, or all different.
EVEN = bytes([0, 0, 0, 0, 17] + 11 * [0])
SKEWED = bytes([1] * 15 + [2])

#: Table H.1: prediction from the samples to the left, above, and above left.
PREDICTIONS: dict[int, Callable[[int, int, int], int]] = {
    1: lambda a, b, c: a,
    2: lambda a, b, c: b,
    3: lambda a, b, c: c,
    4: lambda a, b, c: a + b - c,
    5: lambda a, b, c: a + ((b - c) >> 1),
    6: lambda a, b, c: b + ((a - c) >> 1),
    7: lambda a, b, c: (a + b) >> 1,
}


class BitWriter:
    """Entropy-coded data: bits, padded with ones, 0xFF stuffed (F.1.2.3)."""

    def __init__(self) -> None:
        self.bits: list[str] = []

    def add(self, value: int, size: int) -> None:
        if size:
            self.bits.append(f"{value & ((1 << size) - 1):0{size}b}")

    def signed(self, value: int, size: int) -> None:
        """The extra bits of a value of category `size` (F.1.2.1.1)."""
        self.add(value if value > 0 else value + (1 << size) - 1, size)

    def data(self) -> bytes:
        bits = "".join(self.bits)
        bits += "1" * (-len(bits) % 8)
        return int(bits or "0", 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")


def code_words(counts: bytes, symbols: bytes) -> dict[int, tuple[int, int]]:
    """Symbol to (code, length), annex C."""
    words, code, used = {}, 0, iter(symbols)
    for length, count in enumerate(counts, 1):
        for _ in range(count):
            words[next(used)] = (code, length)
            code += 1
        code <<= 1
    return words


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def frame_header(marker: int, precision: int, shape: tuple[int, ...]) -> bytes:
    return segment(marker, struct.pack(">BHHB", precision, *shape, 1) + bytes([1, 0x11, 0]))


def scan_header(start: int, end: int, approximation: int) -> bytes:
    return segment(0xDA, bytes([1, 1, 0, start, end, approximation]))


def with_restarts(intervals: list[bytes]) -> bytes:
    markers = [bytes([0xFF, 0xD0 + number % 8]) for number in range(len(intervals) - 1)]
    return b"".join(each + mark for each, mark in zip(intervals, [*markers, b""], strict=True))


@dataclass(frozen=True)
class Lossless:
    """How a lossless frame is written (annex H)."""

    precision: int = 16
    predictor: int = 1
    point_transform: int = 0
    restart_rows: int = 0
    counts: bytes = EVEN

    def encode(self, samples: NDArray[np.integer]) -> bytes:
        rows, columns = samples.shape
        symbols = bytes(range(17))
        words = code_words(self.counts, symbols)
        each = self.restart_rows or rows
        intervals = [
            self._interval(samples[top : top + each].tolist(), words) for top in range(0, rows, each)
        ]
        return b"".join(
            [
                b"\xff\xd8",
                segment(0xC4, b"\0" + self.counts + symbols),
                segment(0xDD, struct.pack(">H", self.restart_rows * columns)) if self.restart_rows else b"",
                frame_header(0xC3, self.precision, samples.shape),
                scan_header(self.predictor, 0, self.point_transform),
                with_restarts(intervals),
                b"\xff\xd9",
            ]
        )

    def _interval(self, strip: list[list[int]], words: dict[int, tuple[int, int]]) -> bytes:
        writer = BitWriter()
        for difference in self._differences(strip):
            size = difference.bit_length() if difference >= 0 else (-difference).bit_length()
            writer.add(*words[size])
            writer.signed(difference, size if size < 16 else 0)
        return writer.data()

    def _differences(self, strip: list[list[int]]) -> Iterator[int]:
        """Differences of -32767 to 32768, modulo 2**16 (H.1.2.1)."""
        samples = [[sample >> self.point_transform for sample in row] for row in strip]
        for y, row in enumerate(samples):
            for x, sample in enumerate(row):
                if y == 0 and x == 0:
                    predicted = 1 << (self.precision - self.point_transform - 1)
                elif y == 0:
                    predicted = row[x - 1]
                elif x == 0:
                    predicted = samples[y - 1][0]
                else:
                    above = samples[y - 1]
                    predicted = PREDICTIONS[self.predictor](row[x - 1], above[x], above[x - 1])
                difference = (sample - predicted) & 0xFFFF
                yield difference if difference <= 0x8000 else difference - 0x10000


#: Sizes of DC differences; runs and sizes of AC coefficients that `encode_extended` may use.
DC_COUNTS, DC_SYMBOLS = bytes([0, 0, 0, 0, 16] + 11 * [0]), bytes(range(16))
AC_SYMBOLS = bytes([0x00, 0xF0, *(run << 4 | size for size in range(1, 15) for run in range(16))])
AC_COUNTS = bytes([0, 1, 1, 0, 0, 0, 0, 0, 0, len(AC_SYMBOLS) - 2, 0, 0, 0, 0, 0, 0])


def encode_extended(
    blocks: NDArray[np.integer],
    shape: tuple[int, int],
    quantisation: NDArray[np.integer],
    restart_interval: int = 0,
) -> bytes:
    """Write a frame of 12 bits from its quantised coefficients, shape (blocks, 64), in zigzag order."""
    each = restart_interval or len(blocks)
    intervals = [_blocks(blocks[first : first + each]) for first in range(0, len(blocks), each)]
    deep = int(quantisation.max()) > 255
    return b"".join(
        [
            b"\xff\xd8",
            segment(0xDB, bytes([deep << 4]) + quantisation.astype(">u2" if deep else "u1").tobytes()),
            frame_header(0xC1, 12, shape),
            segment(0xC4, b"\0" + DC_COUNTS + DC_SYMBOLS + b"\x10" + AC_COUNTS + AC_SYMBOLS),
            segment(0xDD, struct.pack(">H", restart_interval)) if restart_interval else b"",
            scan_header(0, 63, 0),
            with_restarts(intervals),
            b"\xff\xd9",
        ]
    )


def _blocks(blocks: NDArray[np.integer]) -> bytes:
    dc_words, ac_words = code_words(DC_COUNTS, DC_SYMBOLS), code_words(AC_COUNTS, AC_SYMBOLS)
    writer, previous = BitWriter(), 0
    for dc, *ac in blocks.tolist():
        size = abs(dc - previous).bit_length()
        writer.add(*dc_words[size])
        writer.signed(dc - previous, size)
        previous, run = dc, 0
        while any(ac):
            value, *ac = ac
            if value == 0:
                run += 1
                continue
            for _ in range(run // 16):
                writer.add(*ac_words[0xF0])
            size = abs(value).bit_length()
            writer.add(*ac_words[run % 16 << 4 | size])
            writer.signed(value, size)
            run = 0
        if ac:
            writer.add(*ac_words[0])
    return writer.data()
