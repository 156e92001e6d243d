"""Lossless JPEG of 2 to 16 bits (ITU-T T.81 annex H): the commonest compression of radiograph archives.

Written here because no decoder of more than 8 bits is both permissively licensed and small, and large ones
take a frame with missing data for a complete one. All is done on whole arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.dicom.damage import broken
from promptray.runtime.dicom.jpeg_scan import (
    INVALID,
    HuffmanTable,
    Scan,
    bit_windows,
    check_end,
    read_scan,
    signed_values,
)
from promptray.runtime.dicom.walk import walk

Samples = NDArray[np.uint16]

_LOSSLESS = 0xC3  # SOF3: lossless, sequential, Huffman
#: Bytes of a scan decoded at a time, which takes about a hundred times as much memory.
_CHUNK = 1 << 18


def decode_lossless(frame: bytes) -> Samples:
    """Decode a lossless JPEG frame of one component.

    Parameters
    ----------
    frame : bytes
        The whole code stream. Its rows and columns must have been checked against a limit.

    Returns
    -------
    ndarray of uint16, shape (rows, columns)
        All below 2**precision.

    Raises
    ------
    ImageError
        `image.broken` where the stream is not lossless JPEG, is damaged or ends early.
    """
    scan = read_scan(frame)
    predict, point_transform = PREDICTORS.get(scan.spectral_start), scan.approximation
    if scan.process != _LOSSLESS or not 2 <= scan.precision <= 16 or predict is None:
        raise broken("the frame is not lossless JPEG of 2 to 16 bits with predictor 1 to 7")
    bits = scan.precision - point_transform
    if scan.spectral_end or point_transform > 15 or bits < 1:
        raise broken("the scan header is not that of lossless JPEG")
    rows_each = _rows_of_an_interval(scan)
    intervals = scan.intervals(-(-scan.rows // rows_each))
    samples = np.empty((scan.rows, scan.columns), np.uint16)
    table = scan.table(0)
    # A difference of category 16 is 32768 and has no further bits.
    sizes = np.where(table.symbols < 16, table.symbols, 0)
    steps_of_window = np.where(table.lengths, table.lengths + sizes, INVALID).astype(np.uint8)
    for number, data in enumerate(intervals):
        strip = samples[number * rows_each : (number + 1) * rows_each]
        strip.ravel()[:] = _differences(data, strip.size, table, steps_of_window)
        strip[:1, :1] += np.uint16(1 << bits - 1)
        predict(strip)
    if int(samples.max()) >> bits:
        raise broken("the JPEG scan is damaged: a sample exceeds the frame's precision")
    return samples << np.uint16(point_transform)


def _rows_of_an_interval(scan: Scan) -> int:
    """Return after how many rows prediction starts anew: restart intervals are whole rows (H.1.1)."""
    if not scan.restart_interval:
        return scan.rows
    rows, beside = divmod(scan.restart_interval, scan.columns)
    if beside:
        raise broken("the restart interval of the lossless JPEG frame is not a number of rows")
    return rows


def _differences(data: bytes, count: int, table: HuffmanTable, steps_of_window: NDArray[np.uint8]) -> Samples:
    """Decode `count` differences, modulo 2**16, of a restart interval (H.1.2.2)."""
    if count > 8 * len(data):
        raise broken("the JPEG scan ends early")
    differences, done, bit = np.empty(count, np.uint16), 0, 0
    for first in range(0, len(data), _CHUNK):
        # The last symbol of a chunk reaches at most 31 bits, or one invalid step, beyond it.
        windows = bit_windows(data, first, min(_CHUNK, len(data) - first) + 4)
        end = len(windows) - 32
        steps = steps_of_window.take(windows)
        starts, bit = walk(steps[:end], bit)
        bit -= end
        at = starts[: count - done]
        differences[done : done + at.size] = _values(windows, at, table)
        done += at.size
        if done == count:
            check_end(data, 8 * first + int(at[-1]) + int(steps[at[-1]]))
            return differences
    raise broken("the JPEG scan ends early")


def _values(windows: NDArray[np.uint16], at: NDArray[np.int64], table: HuffmanTable) -> Samples:
    codes = windows[at]
    lengths, categories = table.lengths[codes], table.symbols[codes].astype(np.int32)
    if not lengths.all() or categories.max(initial=0) > 16:
        raise broken("the JPEG scan is damaged: it holds a code that is not in its table")
    large = categories == 16
    values = signed_values(windows, at + lengths, np.where(large, 0, categories))
    return np.where(large, 32768, values).astype(np.uint16)


# Each predictor (table H.1) turns differences into samples in place, modulo 2**16. The first row is predicted
# from the left, the first column from above, the first sample by a constant that was added before.


def _left(samples: Samples) -> None:
    """Ra."""
    _accumulate(samples[:, 0])
    _accumulate(samples, axis=1)


def _above(samples: Samples) -> None:
    """Rb."""
    _accumulate(samples[0])
    _accumulate(samples)


def _above_left(samples: Samples) -> None:
    """Rc."""
    _edges(samples)
    for above, row in pairwise(samples):
        row[1:] += above[:-1]


def _plane(samples: Samples) -> None:
    """Ra + Rb - Rc: twice cumulated, the edges included."""
    _accumulate(samples, axis=1)
    _accumulate(samples)


def _left_and_slope(samples: Samples) -> None:
    """Ra + ((Rb - Rc) >> 1): the slope is known from the row above, the rest cumulates."""
    _edges(samples)
    for above, row in pairwise(samples):
        row[1:] += (np.diff(above.astype(np.int32)) >> 1).astype(np.uint16)
        _accumulate(row)


def _above_and_slope(samples: Samples) -> None:
    """Rb + ((Ra - Rc) >> 1): the same with rows and columns exchanged."""
    turned = samples.T.copy()
    _left_and_slope(turned)
    samples[:] = turned.T


def _mean(samples: Samples) -> None:
    """(Ra + Rb) >> 1: the samples of an anti-diagonal depend on those of the one before only."""
    _edges(samples)
    rows, columns = samples.shape
    flat = samples.ravel()
    for diagonal in range(2, rows + columns - 1 if min(rows, columns) > 1 else 2):
        top, bottom = max(1, diagonal - columns + 1), min(rows - 1, diagonal - 1)
        first = top * columns + diagonal - top
        last = bottom * columns + diagonal - bottom
        left = flat[first - 1 : last : columns - 1].astype(np.uint32)
        above = flat[first - columns : last - columns + 1 : columns - 1]
        flat[first : last + 1 : columns - 1] += ((left + above) >> 1).astype(np.uint16)


def _edges(samples: Samples) -> None:
    _accumulate(samples[0])
    _accumulate(samples[:, 0])


def _accumulate(differences: Samples, axis: int = 0) -> None:
    np.cumsum(differences, axis=axis, dtype=np.uint16, out=differences)


#: Selection value (Ss of the scan header) to predictor, table H.1.
PREDICTORS: dict[int, Callable[[Samples], None]] = {
    1: _left,
    2: _above,
    3: _above_left,
    4: _plane,
    5: _left_and_slope,
    6: _above_and_slope,
    7: _mean,
}
