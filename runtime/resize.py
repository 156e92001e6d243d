"""Area resize of 8-bit grey pictures, bit-equal to OpenCV's ``cv2.resize(..., INTER_AREA)``.

CARZero's published preprocessing resizes with OpenCV. OpenCV itself (153 MB installed) does not fit
the edge install, so its four INTER_AREA branches are written here in NumPy:

==========================================  ==================================================
both axes keep their size                   copy
both shrink by an integer factor            box mean; 2 x 2 as ``(sum + 2) >> 2``
both shrink or stay                         separable float32 weights, horizontal then vertical
either axis grows                           OpenCV's 11-bit integer linear path, area offsets
==========================================  ==================================================

OpenCV sums in float32 and rounds to 8 bits, so its order decides the levels that come out next to a half,
about one in a thousand. All are summed rows first, which is fast, and those few again in OpenCV's order.
tests/runtime/test_resize.py compares with cv2 itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.resize_linear import Between, blend

Grey = NDArray[np.uint8]

_EDGE = 1e-3  # OpenCV leaves out border cells covered by less than this share of a pixel.
_ROUNDING = 2.0**-24  # the most, relatively, that a float32 operation is wrong by
_KEPT = 64  # axes whose weights are kept
_AT_ONCE = 1 << 20  # pixels that are summed again at a time: it bounds the memory


@dataclass(frozen=True, eq=False)
class _Axis:
    """What each output pixel of an axis is made of.

    Attributes
    ----------
    first, count : list of int
        Source pixels, in order; beside them `index` repeats pixel 0 with weight 0.
    index : intp (taps, target)
    weight : float32 (taps, target)
    """

    first: list[int]
    count: list[int]
    index: NDArray[np.intp]
    weight: NDArray[np.float32]


def resize_area(picture: Grey, rows: int, columns: int) -> Grey:
    """Resize a picture as ``cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA)`` does.

    Parameters
    ----------
    picture : ndarray of uint8, shape (H, W)
        Not changed; any strides.
    rows, columns : int
        Size of the result, each at least 1.

    Returns
    -------
    ndarray of uint8, shape (rows, columns)
        Always a new array, C-contiguous.
    """
    height, width = picture.shape
    if (height, width) == (rows, columns):
        return picture.copy()
    vertical, horizontal = 1.0 / (rows / height), 1.0 / (columns / width)
    if vertical < 1.0 or horizontal < 1.0:
        return blend(picture, across=grown_weights(width, columns), down=grown_weights(height, rows))
    if _is_integer(vertical) and _is_integer(horizontal):
        return _box_mean(picture, rows, columns, round(vertical), round(horizontal))
    return _weighted(picture, rows, columns)


def _is_integer(scale: float) -> bool:
    return abs(scale - round(scale)) < np.finfo(np.float64).eps


def _box_mean(picture: Grey, rows: int, columns: int, tall: int, wide: int) -> Grey:
    boxes = picture[: rows * tall, : columns * wide].reshape(rows, tall, columns, wide)
    total = boxes.sum(axis=(1, 3), dtype=np.int32)
    if (tall, wide) == (2, 2):
        return ((total + 2) >> 2).astype(np.uint8)
    mean = total.astype(np.float32) * np.float32(1.0 / (tall * wide))
    return np.rint(mean).astype(np.uint8)


def area_weights(source: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the weights of ``computeResizeAreaTab`` for each output pixel of an axis that does not grow.

    Returns
    -------
    index : intp (taps, target)
        Source pixels in OpenCV's order: left edge, whole pixels, right edge.
    weight : float32 (taps, target)
        Missing taps have weight 0.
    """
    axis = _axis(source, target)
    return axis.index, axis.weight


@lru_cache(maxsize=_KEPT)
def _axis(source: int, target: int) -> _Axis:
    scale = 1.0 / (target / source)
    runs = [_area_run(output, scale, source) for output in range(target)]
    longest = max(len(weights) for _, weights in runs)
    index = np.zeros((longest, target), np.intp)
    weight = np.zeros((longest, target), np.float32)
    for output, (first, weights) in enumerate(runs):
        index[: len(weights), output] = np.arange(first, first + len(weights))
        weight[: len(weights), output] = weights
    index.flags.writeable = weight.flags.writeable = False
    return _Axis([first for first, _ in runs], [len(weights) for _, weights in runs], index, weight)


def _area_run(output: int, scale: float, source: int) -> tuple[int, list[float]]:
    """Return the first source pixel and the weights of one output pixel."""
    start = output * scale
    end = start + scale
    cell = min(scale, source - start)
    whole_end = min(math.floor(end), source - 1)
    whole_start = min(math.ceil(start), whole_end)
    weights = [1.0 / cell] * (whole_end - whole_start)
    first = whole_start
    if whole_start - start > _EDGE:
        weights.insert(0, (whole_start - start) / cell)
        first -= 1
    if end - whole_end > _EDGE:
        weights.append(min(min(end - whole_end, 1.0), cell) / cell)
    return first, weights


def _weighted(picture: Grey, rows: int, columns: int) -> Grey:
    down, across = _axis(picture.shape[0], rows), _axis(picture.shape[1], columns)
    total = _rows_first(picture, down, across)
    level = np.rint(total)
    # Two orders of the same sum differ by less than this: each operation rounds at most 256 levels.
    apart = 2 * 256 * _ROUNDING * (len(down.weight) + len(across.weight) + 4)
    near_half = np.nonzero(np.abs(total - level) > 0.5 - apart)
    each = max(1, _AT_ONCE // (len(down.weight) * len(across.weight)))
    for start in range(0, len(near_half[0]), each):
        row, column = (places[start : start + each] for places in near_half)
        level[row, column] = np.rint(_in_order(picture, down, across, row, column))
    return np.clip(level, 0, 255).astype(np.uint8)


def _rows_first(picture: Grey, down: _Axis, across: _Axis) -> NDArray[np.float32]:
    """Return the weighted means, (rows, columns), in an order that reads each row once and where it lies."""
    wide = np.empty((len(down.first), picture.shape[1]), np.float32)
    for row, (first, count) in enumerate(zip(down.first, down.count, strict=True)):
        np.matmul(down.weight[:count, row], picture[first : first + count].astype(np.float32), out=wide[row])
    total = np.zeros((len(down.first), len(across.first)), np.float32)
    for index, weight in zip(across.index, across.weight, strict=True):
        total += wide.take(index, axis=1) * weight
    return total


def _in_order(
    picture: Grey, down: _Axis, across: _Axis, row: NDArray[np.intp], column: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Return the weighted means of some output pixels as OpenCV sums them: columns first, tap by tap."""
    pixels = picture[down.index[:, row][:, None], across.index[:, column]]
    narrow = np.zeros((len(pixels), len(row)), np.float32)
    for taps, weight in zip(pixels.swapaxes(0, 1), across.weight[:, column], strict=True):
        narrow += taps * weight
    total = np.zeros(len(row), np.float32)
    for level, weight in zip(narrow, down.weight[:, row], strict=True):
        total += level * weight
    return total


def grown_weights(source: int, target: int) -> Between:
    """Return the two source pixels that each output pixel overlaps, on an axis where either axis grows."""
    scale, inverse = 1.0 / (target / source), target / source
    output = np.arange(target, dtype=np.float64)
    first = np.floor(output * scale)
    share = ((output + 1) - (first + 1) * inverse).astype(np.float32)
    share = np.where(share <= 0, np.float32(0), share - np.floor(share)).astype(np.float32)
    share[first >= source - 1] = 0
    return Between.of(first, share, source)
