"""Linear resize of 8-bit grey pictures, bit-equal to OpenCV's ``cv2.resize(..., INTER_LINEAR)``.

OpenCV interpolates 8 bits between two pixels an axis with 11-bit integer weights and drops bits on the way;
:func:`blend` repeats that. Its INTER_AREA does the same where a picture grows, between other pixels (see
`promptray.runtime.resize`). Nothing is antialiased: shrinking to less than half leaves pixels out.
tests/runtime/test_resize_linear.py compares with cv2 itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]

_COEFFICIENT = 2048  # 11-bit weights


@dataclass(frozen=True)
class Between:
    """Two source pixels and their 11-bit weights for each output pixel of one axis, both (2, outputs)."""

    index: NDArray[np.intp]
    weight: NDArray[np.int64]

    @classmethod
    def of(cls, first: NDArray[Any], share: NDArray[np.float32], source: int) -> Between:
        """Return pixels `first` and those after, which get `share` (0..1); the border repeats."""
        index = np.clip(np.stack([first, first + 1]), 0, source - 1).astype(np.intp)
        weight = np.stack([np.float32(1) - share, share]) * np.float32(_COEFFICIENT)
        return cls(index, np.rint(weight).astype(np.int64))


def resize_linear(picture: Grey, rows: int, columns: int) -> Grey:
    """Resize a picture as ``cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_LINEAR)`` does.

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
    if (height, width) == (2 * rows, 2 * columns):  # OpenCV takes the mean of four there
        boxes = picture.reshape(rows, 2, columns, 2).sum(axis=(1, 3), dtype=np.int32)
        return ((boxes + 2) >> 2).astype(np.uint8)
    left, right_share = _centres(width, columns)
    # Beyond the outermost centres OpenCV gives a column its whole weight; a row shares it with itself.
    right_share[(left < 0) | (left >= width - 1)] = 0
    return blend(
        picture,
        across=Between.of(left.clip(0), right_share, width),
        down=linear_weights(height, rows),
    )


def linear_weights(source: int, target: int) -> Between:
    """Return the two source pixels about each output's centre; a border pixel shares with itself."""
    first, share = _centres(source, target)
    return Between.of(first, share, source)


def _centres(source: int, target: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the last pixel whose centre is not after each output's centre, and the share of the next."""
    scale = 1.0 / (target / source)
    centre = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(centre)
    return first, centre - first


def blend(picture: Grey, *, across: Between, down: Between) -> Grey:
    """Interpolate between pixels of `picture` (H, W), columns first, in OpenCV's integer arithmetic."""
    (left, right), (left_weight, right_weight) = across.index, across.weight
    (upper, lower), (upper_weight, lower_weight) = down.index, down.weight
    wide = picture.take(left, axis=1) * left_weight + picture.take(right, axis=1) * right_weight
    wide >>= 4
    above = (upper_weight[:, None] * wide.take(upper, axis=0)) >> 16
    below = (lower_weight[:, None] * wide.take(lower, axis=0)) >> 16
    return ((above + below + 2) >> 2).clip(0, 255).astype(np.uint8)
