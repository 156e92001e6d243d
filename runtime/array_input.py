"""NumPy arrays as pictures: 8-bit grey as it is, other integers through the grey scale chain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.dicom.greyscale import to_grey
from promptray.runtime.dicom.photometric import Photometric
from promptray.runtime.errors import ImageError
from promptray.runtime.limits import check_size

_INTEGERS = tuple(np.dtype(name) for name in ("u1", "i1", "u2", "i2", "u4", "i4"))


def grey_from_array(array: NDArray[np.generic], photometric: Photometric | None = None) -> NDArray[np.uint8]:
    """Take a two-dimensional integer array as a picture.

    A uint8 array without `photometric` is the grey picture itself (0 black, 255 white) and is copied. With
    `photometric`, the values are stored values and go through rescale, window and polarity exactly like
    those of a DICOM object; every dtype but uint8 needs it, because their black and white are unknown.

    Parameters
    ----------
    array : ndarray of shape (rows, columns)
        (u)int8, (u)int16 or (u)int32; any byte order and strides.
    photometric : Photometric, optional
        What the values mean.

    Returns
    -------
    ndarray of uint8, shape (rows, columns)
        C-contiguous, never a view of `array`.

    Raises
    ------
    ImageError
        `image.array` for masks, floats, objects, colour, other shapes, impossible facts; `image.too-large`.
    """
    if isinstance(array, np.ma.MaskedArray):
        raise _refused(
            "the array is masked, and a mask has no grey", "an array without mask", "a masked array"
        )
    if array.ndim != 2 or array.size == 0:
        raise _refused("the array is not one grey image", "shape (rows, columns)", f"shape {array.shape}")
    if array.dtype.newbyteorder("=") not in _INTEGERS:
        raise _refused(
            "the array does not hold integers", "uint8, or integers up to 32 bits", str(array.dtype)
        )
    check_size(array.shape[0], array.shape[1], array.dtype.itemsize)
    native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))
    if photometric is None:
        if native.dtype != np.uint8:
            raise _refused(
                "the meaning of the array's values is not stated", "uint8, or photometric=", str(array.dtype)
            )
        return native.copy()
    if not isinstance(photometric, Photometric):
        raise _refused(
            "photometric= is not the facts of an image", "a Photometric", type(photometric).__name__
        )
    problem = photometric.problem()
    if problem:
        raise _refused(problem, "possible photometric facts", "impossible ones")
    _check_range(native, photometric)
    return to_grey(native, photometric)


def colour_of_array(array: NDArray[np.generic], photometric: Photometric | None = None) -> NDArray[np.uint8]:
    """Take a uint8 array (rows, columns, 3) of red, green and blue as a picture; returns a copy.

    `photometric` has no meaning for it and is refused: a window or polarity must not go unheeded.

    Raises
    ------
    ImageError
        `image.array` or `image.too-large`.
    """
    plain = not isinstance(array, np.ma.MaskedArray) and array.dtype == np.uint8
    if not plain or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise _refused(
            "the array is not one picture in colour",
            "uint8 of shape (rows, columns, 3)",
            f"{array.dtype} of shape {array.shape}",
        )
    if photometric is not None:
        raise _refused(
            "photometric facts are of grey values, and the array is in colour",
            "shape (rows, columns) with photometric=",
            "shape (rows, columns, 3) with photometric=",
        )
    check_size(*array.shape)
    return np.array(array, np.uint8, order="C")


def _check_range(array: NDArray[np.integer], photometric: Photometric) -> None:
    bits, signed = photometric.bits_stored, photometric.signed
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if int(array.min()) < low or int(array.max()) > high:
        raise _refused(
            "the array holds values beyond its stated bits",
            f"{low} to {high}",
            f"{int(array.min())} to {int(array.max())}",
        )


def _refused(message: str, expected: str, found: str) -> ImageError:
    return ImageError(
        "image.array",
        message,
        expected=expected,
        found=found,
        cure="pass a uint8 grey image, or integers with photometric=Photometric(...)",
    )
