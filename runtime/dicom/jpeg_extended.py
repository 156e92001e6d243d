"""Extended sequential JPEG of 12 bits (ITU-T T.81 annex F): the lossy compression of older archives.

Written here because the libraries that read it take a frame with missing data for a complete one, and fill
the rest with grey. The inverse transform is exact to rounding; other decoders differ from it by 1 at most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.dicom.damage import broken
from promptray.runtime.dicom.jpeg_scan import (
    INVALID,
    HuffmanTable,
    bit_windows,
    check_end,
    read_scan,
    signed_values,
)

_EXTENDED = 0xC1  # SOF1: extended sequential, Huffman
_PRECISION = 12
#: Bytes of a scan decoded at a time, so that memory stays bounded whatever the frame's size.
_CHUNK = 1 << 14
_ALL_COEFFICIENTS = (0, 63, 0)  # Ss, Se and Ah, Al of a sequential scan (table B.3)


def decode_extended(frame: bytes) -> NDArray[np.uint16]:
    """Decode a frame of one component of 12 bits.

    Parameters
    ----------
    frame : bytes
        The whole code stream. Its rows and columns must have been checked against a limit.

    Returns
    -------
    ndarray of uint16, shape (rows, columns)
        0 to 4095.

    Raises
    ------
    ImageError
        `image.broken` where the stream is not extended sequential JPEG of 12 bits, is damaged or ends early.
    """
    scan = read_scan(frame)
    if (scan.process, scan.precision) != (_EXTENDED, _PRECISION):
        raise broken("the frame is not extended sequential JPEG of 12 bits")
    if (scan.spectral_start, scan.spectral_end, scan.approximation) != _ALL_COEFFICIENTS:
        raise broken("the scan header is not that of sequential JPEG")
    if scan.quantisation is None or not scan.quantisation.all():
        raise broken("the JPEG frame lacks its quantisation table")
    down, across = -(-scan.rows // 8), -(-scan.columns // 8)
    each = scan.restart_interval or down * across
    intervals = scan.intervals(-(-down * across // each))
    coefficients = np.zeros((down * across, 64), np.int32)
    code = _Code.of(scan.table(0), scan.table(1))
    for number, data in enumerate(intervals):
        _decode_blocks(data, coefficients[number * each : (number + 1) * each], code)
    inverse = scan.quantisation[:, None] * _INVERSE_TRANSFORM
    samples = np.empty((8 * down, 8 * across), np.uint16)
    for row, blocks in enumerate(coefficients.reshape(down, across, 64)):
        levels = (blocks @ inverse + (1 << _PRECISION - 1)).reshape(across, 8, 8)
        # Halves round up; the small term makes those that floating point puts just below do so too.
        rounded = np.clip(np.floor(levels + (0.5 + 1e-6)), 0, (1 << _PRECISION) - 1)
        samples[8 * row : 8 * row + 8] = rounded.transpose(1, 0, 2).reshape(8, -1)
    return np.ascontiguousarray(samples[: scan.rows, : scan.columns])


@dataclass(frozen=True, eq=False)
class _Code:
    """The tables of a scan, and by 16-bit window how far a symbol reaches: in bits, and in coefficients."""

    dc: HuffmanTable
    ac: HuffmanTable
    dc_steps: NDArray[np.uint8]
    ac_steps: NDArray[np.uint8]
    advances: NDArray[np.uint8]

    @classmethod
    def of(cls, dc: HuffmanTable, ac: HuffmanTable) -> _Code:
        runs, sizes = ac.symbols >> 4, ac.symbols & 15
        return cls(
            dc,
            ac,
            dc_steps=np.where(dc.lengths, dc.lengths + dc.symbols % 16, INVALID).astype(np.uint8),
            ac_steps=np.where(ac.lengths, ac.lengths + sizes, INVALID).astype(np.uint8),
            advances=np.where(ac.symbols, runs + 1, 64).astype(np.uint8),  # symbol 0 ends the block
        )


def _decode_blocks(data: bytes, blocks: NDArray[np.int32], code: _Code) -> None:
    """Decode a restart interval into quantised coefficients, in zigzag order (F.2.2)."""
    if 2 * len(blocks) > 8 * len(data):
        raise broken("the JPEG scan ends early")
    begun, place, bit = 0, 0, 0
    for first in range(0, len(data), _CHUNK):
        windows = bit_windows(data, first, min(_CHUNK, len(data) - first) + 4)
        dc_steps, ac_steps = code.dc_steps[windows].tobytes(), code.ac_steps[windows].tobytes()
        advances, end = code.advances[windows].tobytes(), len(windows) - 32
        starts, places = [], []
        while bit < end:
            starts.append(bit)
            places.append(place)
            if place:
                place += advances[bit]
                bit += ac_steps[bit]
                if place > 63:
                    place = 0
            else:
                place = 1
                bit += dc_steps[bit]
        bit -= end
        at, to = np.array(starts, np.int64), np.array(places, np.int64)
        block = np.cumsum(to == 0) + (begun - 1)
        kept = int(np.searchsorted(block, len(blocks)))
        _place_values(windows, at[:kept], block[:kept], to[:kept], blocks, code)
        begun += int(np.count_nonzero(to == 0))
        if begun > len(blocks) or (begun == len(blocks) and not place):
            check_end(data, 8 * first + (int(at[kept]) if kept < len(at) else end + bit))
            blocks[:, 0] = np.cumsum(blocks[:, 0])
            return
    raise broken("the JPEG scan ends early")


def _place_values(
    windows: NDArray[np.uint16],
    at: NDArray[np.int64],
    block: NDArray[np.int64],
    to: NDArray[np.int64],
    blocks: NDArray[np.int32],
    code: _Code,
) -> None:
    """Write the coefficients whose codes begin `at`; `to` is 0 for a DC difference, else the next place."""
    codes, is_ac = windows[at], to > 0
    lengths = np.where(is_ac, code.ac.lengths[codes], code.dc.lengths[codes])
    symbols = np.where(is_ac, code.ac.symbols[codes], code.dc.symbols[codes])
    runs, sizes = symbols >> 4, (symbols & 15).astype(np.int32)
    to = to + runs
    # The greatest sizes of tables F.1 and F.2 for 12 bits; a run without a size is only 16 zeros, or the end.
    impossible = np.where(is_ac, (sizes == 15) | (sizes == 0) & (runs % 15 > 0), runs > 0)
    if not lengths.all() or impossible.any() or to.max(initial=0) > 63:
        raise broken("the JPEG scan is damaged: it holds a code that is not in its table")
    blocks[block, to] = signed_values(windows, at + lengths, sizes)


def _inverse_transform() -> NDArray[np.float64]:
    """Return the matrix from 64 coefficients in zigzag order to the 64 samples of a block (A.3.3)."""
    frequency, sample = np.arange(8)[:, None], np.arange(8)
    basis = np.cos((2 * sample + 1) * frequency * np.pi / 16) / 2
    basis[0] /= np.sqrt(2)
    zigzag = sorted(range(64), key=_along_diagonals)
    return np.asarray(np.kron(basis, basis)[zigzag], np.float64)


def _along_diagonals(place: int) -> tuple[int, int]:
    """Order the places of a block as figure A.6 does: even diagonals upwards, odd ones downwards."""
    row, column = divmod(place, 8)
    return row + column, row if (row + column) % 2 else column


_INVERSE_TRANSFORM = _inverse_transform()
