"""From an 8-bit grey picture to the network's input, by the steps that the bundle declares.

Each step is a row of :data:`OPERATIONS`: it returns the new picture and adds its part to the geometry, so
that heat maps find their way back through any sequence of steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.bundle.manifest import CentreCrop, PadSquare, Preprocessing, ResizeLongerSide
from promptray.runtime.errors import BundleError, ImageError
from promptray.runtime.geometry import AxisMap, Geometry
from promptray.runtime.resize import resize_area

Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class NetworkInput:
    """What the network sees of one picture.

    Attributes
    ----------
    grey : ndarray of uint8, shape (height, width)
        The 8-bit picture after all steps; `pixels` follows from it by :func:`normalise`.
    pixels : ndarray of float32, shape (1, channels, height, width)
        C-contiguous.
    geometry : Geometry
        From the original picture to this plane.
    """

    grey: Grey
    pixels: NDArray[np.float32]
    geometry: Geometry


def preprocess(grey: Grey, spec: Preprocessing) -> NetworkInput:
    """Run the declared steps on a grey picture, then normalise it to float32.

    The picture is resized, padded and cropped in 8 bits, exactly as the published CARZero code does with
    OpenCV and torchvision; the result equals that code's bit for bit.

    Parameters
    ----------
    grey : ndarray of uint8, shape (rows, columns)
        Not changed.
    spec : Preprocessing
        The bundle's declaration.

    Raises
    ------
    ImageError
        `image.too-small` when a side would vanish in the resize.
    BundleError
        `bundle.format` when the steps do not end at the declared height and width.
    """
    if grey.dtype != np.uint8 or grey.ndim != 2 or grey.size == 0:
        raise ImageError(
            "image.array",
            "the picture to preprocess is not 8-bit grey",
            expected="a non-empty uint8 array of shape (rows, columns)",
            found=f"{grey.dtype} of shape {grey.shape}",
        )
    picture, geometry = grey, Geometry.identity(*grey.shape)
    for step in spec.steps:
        picture, geometry = OPERATIONS[type(step)](picture, step, geometry)
    if picture.shape != (spec.height, spec.width):
        raise BundleError(
            "bundle.format",
            "the preprocessing steps do not give the declared network size",
            artefact="bundle.json",
            expected=f"{spec.height} x {spec.width}",
            found=f"{picture.shape[0]} x {picture.shape[1]}",
            cure="end the steps with pad_square or centre_crop of the network's size",
        )
    picture = np.ascontiguousarray(picture)
    return NetworkInput(picture, normalise(picture[None], spec), geometry)


def normalise(grey8: Grey, spec: Preprocessing) -> NDArray[np.float32]:
    """Copy 8-bit pictures to the network's channels as ``((v / 255) - mean) / std`` in float32.

    Each of the three operations rounds to float32, as torchvision's ToTensor and Normalize do; all 256
    values are computed once and looked up.

    Parameters
    ----------
    grey8 : ndarray of uint8, shape (B, height, width)
        For example a bundle's golden inputs, which are stored in 8 bits.
    spec : Preprocessing
        Its `channels` and `normalise` are used: one mean and one std for each channel.

    Returns
    -------
    ndarray of float32, shape (B, channels, height, width)
        C-contiguous.
    """
    unit = np.arange(256, dtype=np.float32) / np.float32(255)
    pixels = np.empty((grey8.shape[0], spec.channels, *grey8.shape[1:]), np.float32)
    for channel, (mean, std) in enumerate(zip(spec.normalise.mean, spec.normalise.std, strict=True)):
        table = (unit - np.float32(mean)) / np.float32(std)
        np.take(table, grey8, out=pixels[:, channel], mode="clip")
    return pixels


def _resize_longer_side(picture: Grey, step: ResizeLongerSide, geometry: Geometry) -> tuple[Grey, Geometry]:
    rows, columns = picture.shape
    # Published CARZero: the factor first, then the product, truncated. For some squares (49, 98, 103 ...)
    # this gives one column less than `size`, which padding then adds.
    factor = step.size / max(rows, columns)
    height, width = (step.size, int(columns * factor)) if rows >= columns else (int(rows * factor), step.size)
    if min(height, width) < 1:
        raise ImageError(
            "image.too-small",
            "a side of the picture vanishes when the longer one is resized",
            expected=f"sides that differ by less than a factor of {step.size}",
            found=f"{rows} x {columns} pixels",
        )
    resized = resize_area(picture, height, width)
    return resized, geometry.then(height, width, AxisMap(height / rows), AxisMap(width / columns))


def _pad_square(picture: Grey, step: PadSquare, geometry: Geometry) -> tuple[Grey, Geometry]:
    rows, columns = picture.shape
    _require(rows <= step.size and columns <= step.size, "pad_square", "at most", step.size, picture)
    top, left = (step.size - rows) // 2, (step.size - columns) // 2
    padded = np.full((step.size, step.size), step.value, np.uint8)
    padded[top : top + rows, left : left + columns] = picture
    return padded, geometry.then(step.size, step.size, AxisMap(offset=top), AxisMap(offset=left))


def _centre_crop(picture: Grey, step: CentreCrop, geometry: Geometry) -> tuple[Grey, Geometry]:
    rows, columns = picture.shape
    _require(rows >= step.size and columns >= step.size, "centre_crop", "at least", step.size, picture)
    # torchvision's CenterCrop: half the margin, rounded half to even.
    top, left = round((rows - step.size) / 2), round((columns - step.size) / 2)
    cropped = picture[top : top + step.size, left : left + step.size]
    return cropped, geometry.then(step.size, step.size, AxisMap(offset=-top), AxisMap(offset=-left))


def _require(fits: bool, operation: str, bound: str, size: int, picture: Grey) -> None:
    if not fits:
        raise BundleError(
            "bundle.format",
            f"the preprocessing step {operation} cannot follow the steps before it",
            artefact="bundle.json",
            expected=f"{bound} {size} pixels per side",
            found=f"{picture.shape[0]} x {picture.shape[1]}",
        )


#: What each kind of step does. A new step is a structure in the manifest and a row here.
OPERATIONS: dict[type, Callable[[Grey, Any, Geometry], tuple[Grey, Geometry]]] = {
    ResizeLongerSide: _resize_longer_side,
    PadSquare: _pad_square,
    CentreCrop: _centre_crop,
}
