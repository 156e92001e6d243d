"""Resize of pictures by the filter that a bundle names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from promptray.runtime.bundle.image_rules import Interpolation
from promptray.runtime.resize import resize_area
from promptray.runtime.resize_cubic import resize_cubic
from promptray.runtime.resize_linear import resize_linear

#: Pillow's filters widen with the reduction, so they are antialiased; open_clip and torchvision use them.
_PILLOW = {
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
#: Of one plane: OpenCV's two, of 8 bits only, whose linear one is not antialiased; and torch's of floats.
_OWN: dict[str, Callable[[NDArray[Any], int, int], NDArray[Any]]] = {
    "area": resize_area,
    "linear": resize_linear,
    "cubic": resize_cubic,
}


def interpolate(
    picture: NDArray[Any],
    rows: int,
    columns: int,
    interpolation: Interpolation,
) -> NDArray[Any]:
    """Resize a picture.

    Parameters
    ----------
    picture : ndarray of uint8 or float32, shape (H, W) or (H, W, 3)
        Not changed; any strides. Channels are resized one by one.
    rows, columns : int
        Size of the result, each at least 1.
    interpolation : {'area', 'linear', 'lanczos', 'bilinear', 'bicubic', 'cubic'}
        OpenCV's INTER_AREA or INTER_LINEAR (8 bits only), Pillow's filter of that name (lanczos: 8 bits
        only), or torch's bicubic without antialiasing (cubic: float32 only).

    Returns
    -------
    ndarray of the same type, shape (rows, columns) or (rows, columns, 3)
        Always a new array, C-contiguous. uint8 is rounded to whole levels; float32 is what torch's
        resize of floats gives.
    """
    if interpolation in _OWN:
        resize = _OWN[interpolation]
        if picture.ndim == 2:
            return resize(picture, rows, columns)
        planes = [resize(picture[..., channel], rows, columns) for channel in range(picture.shape[2])]
        return np.stack(planes, axis=-1)
    if picture.dtype == np.float32 and picture.ndim == 3:  # Pillow has no picture of three float channels
        planes = [interpolate(plane, rows, columns, interpolation) for plane in np.moveaxis(picture, 2, 0)]
        return np.stack(planes, axis=-1)
    # Columns first, as all of Pillow did before 13: it now takes rows first where these shrink more, which
    # gives other levels. One pass a call leaves it no choice.
    image = Image.fromarray(np.ascontiguousarray(picture))
    narrow = image.resize((columns, image.height), _PILLOW[interpolation])
    return np.array(narrow.resize((columns, rows), _PILLOW[interpolation]))
