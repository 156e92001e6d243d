"""From an 8-bit picture to the network's input, by the steps that the bundle declares.

Each step is a row of :data:`OPERATIONS`: it returns the new picture and adds its part to the geometry, so
that heat maps find their way back through any sequence of steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.bundle.image_rules import (
    WHOLE_LEVELS,
    CentreCrop,
    PadSquare,
    Preprocessing,
    ResizeLongerSide,
    ResizeShorterSide,
    Squash,
)
from promptray.runtime.errors import BundleError, ImageError
from promptray.runtime.geometry import AxisMap, Geometry
from promptray.runtime.interpolation import interpolate
from promptray.runtime.limits import MAX_PIXELS

#: The steps that give a picture another size by a filter.
Resize = ResizeLongerSide | ResizeShorterSide | Squash

#: Grey levels 0..255, uint8 or (where fractions are kept) float32; shape (rows, columns), or in colour
#: (rows, columns, 3).
Levels = NDArray[Any]


@dataclass(frozen=True)
class NetworkInput:
    """What the network sees of one picture.

    Attributes
    ----------
    picture : ndarray of uint8 or float32, shape (height, width), or (height, width, 3) where colour is kept
        The picture after all steps, levels 0..255 (in fractions, ``cubic`` may overshoot them at edges);
        `pixels` follows from it by :func:`normalise`.
    pixels : ndarray of float32, shape (1, channels, height, width)
        C-contiguous.
    geometry : Geometry
        From the original picture to this plane.
    """

    picture: Levels
    pixels: NDArray[np.float32]
    geometry: Geometry


def preprocess(picture: Levels, spec: Preprocessing, geometry: Geometry | None = None) -> NetworkInput:
    """Run the declared steps on a picture, then normalise it to float32.

    In 8 bits the picture is resized, padded and cropped exactly as the published CARZero code does with
    OpenCV and torchvision, and open_clip with Pillow and torchvision; the result equals theirs bit for bit.
    Where fractions are kept, it equals torch's resize of floats to within the last bits.

    Parameters
    ----------
    picture : ndarray of uint8, shape (rows, columns), or (rows, columns, 3) where `spec` keeps colour
        Not changed.
    spec : Preprocessing
        The bundle's declaration.
    geometry : Geometry, optional
        From the original picture to this one; by default this is the original.

    Raises
    ------
    ImageError
        `image.too-small` when a side would vanish in the resize.
    BundleError
        `bundle.format` when the steps do not end at the declared height and width.
    """
    channels = {2: (), 3: (3,)} if spec.colour == "rgb" else {2: ()}
    if picture.dtype != np.uint8 or picture.shape[2:] != channels.get(picture.ndim) or picture.size == 0:
        raise ImageError(
            "image.array",
            "the picture to preprocess is not 8-bit grey" + (" or colour" if spec.colour == "rgb" else ""),
            expected="a non-empty uint8 array of shape (rows, columns)"
            + (" or (rows, columns, 3)" if spec.colour == "rgb" else ""),
            found=f"{picture.dtype} of shape {picture.shape}",
        )
    geometry = geometry or Geometry.identity(*picture.shape[:2])
    for step in spec.steps:
        if getattr(step, "interpolation", WHOLE_LEVELS[0]) not in WHOLE_LEVELS:
            picture = picture.astype(spec.levels, copy=False)
        picture, geometry = OPERATIONS[type(step)](picture, step, geometry)
    if picture.shape[:2] != (spec.height, spec.width):
        raise BundleError(
            "bundle.format",
            "the preprocessing steps do not give the declared network size",
            artefact="bundle.json",
            expected=f"{spec.height} x {spec.width}",
            found=f"{picture.shape[0]} x {picture.shape[1]}",
            cure="end the steps with pad_square or centre_crop of the network's size",
        )
    if spec.colour == "rgb" and picture.ndim == 2:
        picture = np.repeat(picture[:, :, None], 3, axis=2)
    picture = np.ascontiguousarray(picture)
    return NetworkInput(picture, normalise(picture[None], spec), geometry)


def normalise(pictures: Levels, spec: Preprocessing) -> NDArray[np.float32]:
    """Bring pictures to the network's channels as ``((v / 255) - mean) / std`` in float32.

    Each of the three operations rounds to float32, as torchvision's ToTensor and Normalize do; of 8-bit
    pictures all 256 values are computed once and looked up.

    Parameters
    ----------
    pictures : ndarray of uint8 or float32, shape (B, height, width) or (B, height, width, channels)
        For example a bundle's golden inputs. A grey one is copied to each channel.
    spec : Preprocessing
        Its `channels` and `normalise` are used: one mean and one std for each channel.

    Returns
    -------
    ndarray of float32, shape (B, channels, height, width)
        C-contiguous.
    """
    whole = pictures.dtype == np.uint8
    unit = (np.arange(256, dtype=np.float32) if whole else pictures) / np.float32(255)
    pixels = np.empty((len(pictures), spec.channels, *pictures.shape[1:3]), np.float32)
    for channel, (mean, std) in enumerate(zip(spec.normalise.mean, spec.normalise.std, strict=True)):
        values = unit if whole or unit.ndim == 3 else unit[..., channel]
        values = (values - np.float32(mean)) / np.float32(std)
        if whole:
            plane = pictures if pictures.ndim == 3 else pictures[..., channel]
            np.take(values, plane, out=pixels[:, channel], mode="clip")
        else:
            pixels[:, channel] = values
    return pixels


def resized_size(step: Resize, rows: int, columns: int) -> tuple[int, int]:
    """Return height and width of a picture of `rows` x `columns` after a step that resizes it.

    Raises
    ------
    ImageError
        ``image.too-small`` when a side would vanish; ``image.too-large``.
    """
    height, width = _SIZES[type(step)](step, rows, columns)
    if min(height, width) < 1:
        raise ImageError(
            "image.too-small",
            "a side of the picture vanishes when the longer one is resized",
            expected=f"sides that differ by less than a factor of {step.size}",
            found=f"{rows} x {columns} pixels",
        )
    if height * width > MAX_PIXELS:
        raise ImageError(
            "image.too-large",
            "the picture's longer side exceeds the size limit when the shorter one is resized",
            expected=f"at most {MAX_PIXELS} pixels",
            found=f"{height} x {width}",
        )
    return height, width


def _longer_side(step: ResizeLongerSide, rows: int, columns: int) -> tuple[int, int]:
    if step.rounding == "nearest":  # open_clip's ResizeKeepRatio
        ratio = max(rows, columns) / step.size
        return round(rows / ratio), round(columns / ratio)
    # Published CARZero: the factor first, then the product, truncated. For some squares (49, 98, 103 ...)
    # this gives one column less than `size`, which padding then adds.
    factor = step.size / max(rows, columns)
    height, width = int(rows * factor), int(columns * factor)
    if step.rounding == "truncate":
        return (step.size, width) if rows >= columns else (height, step.size)
    return height, width


def _shorter_side(step: ResizeShorterSide, rows: int, columns: int) -> tuple[int, int]:
    # torchvision's Resize of one number: the product first, truncated.
    if rows <= columns:
        return step.size, int(step.size * columns / rows)
    return int(step.size * rows / columns), step.size


def _squash(step: Squash, rows: int, columns: int) -> tuple[int, int]:
    return step.size, step.size


_SIZES: dict[type, Callable[[Any, int, int], tuple[int, int]]] = {
    ResizeLongerSide: _longer_side,
    ResizeShorterSide: _shorter_side,
    Squash: _squash,
}


def _resize(picture: Levels, step: Resize, geometry: Geometry) -> tuple[Levels, Geometry]:
    rows, columns = picture.shape[:2]
    height, width = resized_size(step, rows, columns)
    made = interpolate(picture, height, width, step.interpolation)
    return made, geometry.then(height, width, AxisMap(height / rows), AxisMap(width / columns))


def _pad_square(picture: Levels, step: PadSquare, geometry: Geometry) -> tuple[Levels, Geometry]:
    rows, columns = picture.shape[:2]
    _require(rows <= step.size and columns <= step.size, "pad_square", "at most", step.size, picture)
    top, left = padding_before(step.size, rows), padding_before(step.size, columns)
    padded = np.full((step.size, step.size, *picture.shape[2:]), step.value, picture.dtype)
    padded[top : top + rows, left : left + columns] = picture
    return padded, geometry.then(step.size, step.size, AxisMap(offset=top), AxisMap(offset=left))


def _centre_crop(picture: Levels, step: CentreCrop, geometry: Geometry) -> tuple[Levels, Geometry]:
    rows, columns = picture.shape[:2]
    _require(rows >= step.size and columns >= step.size, "centre_crop", "at least", step.size, picture)
    top, left = cropping_before(step.size, rows), cropping_before(step.size, columns)
    cropped = picture[top : top + step.size, left : left + step.size]
    return cropped, geometry.then(step.size, step.size, AxisMap(offset=-top), AxisMap(offset=-left))


def padding_before(size: int, side: int) -> int:
    """Return the rows above, or columns to the left, that pad a side; the odd one goes after."""
    return (size - side) // 2


def cropping_before(size: int, side: int) -> int:
    """Return the rows above, or columns to the left, that are cut off a side.

    torchvision's CenterCrop: half the margin, rounded half to even.
    """
    return round((side - size) / 2)


def _require(fits: bool, operation: str, bound: str, size: int, picture: Levels) -> None:
    if not fits:
        raise BundleError(
            "bundle.format",
            f"the preprocessing step {operation} cannot follow the steps before it",
            artefact="bundle.json",
            expected=f"{bound} {size} pixels per side",
            found=f"{picture.shape[0]} x {picture.shape[1]}",
        )


#: What each kind of step does. A new step is a structure in the manifest and a row here.
OPERATIONS: dict[type, Callable[[Levels, Any, Geometry], tuple[Levels, Geometry]]] = {
    ResizeLongerSide: _resize,
    ResizeShorterSide: _resize,
    Squash: _resize,
    PadSquare: _pad_square,
    CentreCrop: _centre_crop,
}
