"""Area resize of 8-bit grey pictures, bit-equal to OpenCV's ``cv2.resize(..., INTER_AREA)``.

CARZero's published preprocessing resizes with OpenCV. OpenCV itself (153 MB installed) does not fit
the edge install, so its four INTER_AREA branches are written here in NumPy:

==========================================  ==================================================
both axes keep their size                   copy
both shrink by an integer factor            box mean; 2 x 2 as ``(sum + 2) >> 2``
both shrink or stay                         separable float32 weights, horizontal then vertical
either axis grows                           OpenCV's 11-bit integer linear path, area offsets
==========================================  ==================================================

Every float32 operation is done in OpenCV's order, because the result is rounded to 8 bits and a
different order moves ties. tests/runtime/test_resize.py compares with cv2 itself.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.resize_linear import Between, blend

Grey = NDArray[np.uint8]

_EDGE = 1e-3  # OpenCV leaves out border cells covered by less than this share of a pixel.


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
    scale = 1.0 / (target / source)
    runs = [_area_run(output, scale, source) for output in range(target)]
    longest = max(len(weights) for _, weights in runs)
    index = np.zeros((longest, target), np.intp)
    weight = np.zeros((longest, target), np.float32)
    for output, (first, weights) in enumerate(runs):
        index[: len(weights), output] = np.arange(first, first + len(weights))
        weight[: len(weights), output] = weights
    return index, weight


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
    height, width = picture.shape
    narrow = np.zeros((height, columns), np.float32)
    for index, weight in zip(*area_weights(width, columns), strict=True):
        narrow += picture.take(index, axis=1) * weight
    total = np.zeros((rows, columns), np.float32)
    for index, weight in zip(*area_weights(height, rows), strict=True):
        total += narrow.take(index, axis=0) * weight[:, None]
    return np.clip(np.rint(total), 0, 255).astype(np.uint8)


def grown_weights(source: int, target: int) -> Between:
    """Return the two source pixels that each output pixel overlaps, on an axis where either axis grows."""
    scale, inverse = 1.0 / (target / source), target / source
    output = np.arange(target, dtype=np.float64)
    first = np.floor(output * scale)
    share = ((output + 1) - (first + 1) * inverse).astype(np.float32)
    share = np.where(share <= 0, np.float32(0), share - np.floor(share)).astype(np.float32)
    share[first >= source - 1] = 0
    return Between.of(first, share, source)
