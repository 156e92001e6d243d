"""Cubic resize of pictures in fractions, as torch's ``interpolate(..., mode="bicubic")`` of floats does it.

Four pixels an axis, whatever the reduction: nothing is antialiased. The weights are Keys' with a = -0.75, the
border repeats, and the result is not clipped, so that it may leave 0..255 beside an edge. torchvision resized
float tensors so before its version 0.17, where CheXzero's preprocessing comes from. Places between pixels are
those of torch's float32. Torch also sums in float32, here it is doubles, rounded once: equal to within the
last bits. tests/runtime/test_resize_cubic.py compares with torch itself.

Source: Keys, IEEE Transactions on Acoustics, Speech, and Signal Processing 29(6), 1981.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_A = -0.75


def resize_cubic(picture: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """Resize a picture by cubic convolution without antialiasing.

    Parameters
    ----------
    picture : ndarray of float32, shape (H, W)
        Not changed; any strides.
    rows, columns : int
        Size of the result, each at least 1.

    Returns
    -------
    ndarray of float32, shape (rows, columns)
        Always a new array, C-contiguous.
    """
    height, width = picture.shape
    wide = picture.astype(np.float64)
    places, weights = cubic_taps(width, columns)
    wide = sum(wide.take(place, axis=1) * weight for place, weight in zip(places, weights, strict=True))
    places, weights = cubic_taps(height, rows)
    made = sum(
        wide.take(place, axis=0) * weight[:, None] for place, weight in zip(places, weights, strict=True)
    )
    return np.ascontiguousarray(made, np.float32)


def cubic_taps(source: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return for each output of one axis its four source pixels and their weights, both (4, target)."""
    scale = np.float64(np.float32(source) / np.float32(target))
    # Torch's float32 product and difference are one operation with one rounding on today's processors.
    centre = (scale * (np.arange(target) + 0.5) - 0.5).astype(np.float32)
    first = np.floor(centre)
    share = (centre - first).astype(np.float64)
    places = np.clip(first + np.arange(-1, 3)[:, None], 0, source - 1).astype(np.intp)
    return places, np.stack([_far(1 + share), _near(share), _near(1 - share), _far(2 - share)])


def _near(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weight of a pixel at a distance of 0 to 1."""
    return ((_A + 2) * distance - (_A + 3)) * distance**2 + 1


def _far(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weight of a pixel at a distance of 1 to 2."""
    return _A * (((distance - 5) * distance + 8) * distance - 4)
