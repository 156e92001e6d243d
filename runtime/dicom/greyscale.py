"""The grey scale chain that is used: one table from stored value to 8-bit grey, then one look-up.

The table is made by the reference functions on every stored value that the image's container can hold,
so a 5-megapixel image costs 65,536 evaluations instead of 5,000,000.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.dicom import greyscale_reference as reference
from promptray.runtime.dicom.photometric import Photometric

#: Bytes of a stored value, of which all values can be tabulated.
LARGEST_CONTAINER = 2
#: Pixels per look-up: the 64-bit indices NumPy makes of a block stay in the processor's cache.
_BLOCK = 65536


@dataclass(frozen=True, eq=False)
class Tabulated:
    """A frame as places in a table of grey.

    Attributes
    ----------
    codes : uint8 or uint16 (rows, columns)
    table : uint8 (256 or 65536,)
        Grey of every code.
    """

    codes: NDArray[np.unsignedinteger]
    table: NDArray[np.uint8]

    @classmethod
    def of_grey(cls, grey: NDArray[np.uint8]) -> Tabulated:
        """Return a grey picture, whose values are their own grey."""
        return cls(grey, np.arange(256, dtype=np.uint8))

    @property
    def grey(self) -> NDArray[np.uint8]:
        """The 8-bit picture, made anew each time; C-contiguous."""
        return _look_up(self.table, self.codes.ravel()).reshape(self.codes.shape)


def tabulated(stored: NDArray[np.integer], photometric: Photometric) -> Tabulated:
    """Return stored values, in a container of at most 16 bits, with the grey of each (see `to_grey`)."""
    codes = codes_of(stored)
    return Tabulated(codes, grey_table(stored, codes, photometric))


def to_grey(stored: NDArray[np.integer], photometric: Photometric) -> NDArray[np.uint8]:
    """Turn stored values into 8-bit grey; equal to :func:`to_grey_reference` on every image.

    Parameters
    ----------
    stored : ndarray of integers, shape (rows, columns)
        Sign-extended, without overlay bits; 8 or 16-bit containers are tabulated, wider ones are computed
        block by block.
    photometric : Photometric
        Must have no `problem()`.

    Returns
    -------
    ndarray of uint8, shape (rows, columns)
        C-contiguous.
    """
    if stored.dtype.itemsize > LARGEST_CONTAINER:
        return _by_blocks(np.ascontiguousarray(stored).ravel(), photometric).reshape(stored.shape)
    return tabulated(stored, photometric).grey


def codes_of(stored: NDArray[np.integer]) -> NDArray[np.unsignedinteger]:
    """Return the place of each stored value in :func:`grey_table`: its bits, read as unsigned."""
    return np.ascontiguousarray(stored).view(np.dtype(f"u{stored.dtype.itemsize}"))


def grey_table(
    stored: NDArray[np.integer], codes: NDArray[np.unsignedinteger], photometric: Photometric
) -> NDArray[np.uint8]:
    """Return the grey of every value that the container of an image can hold.

    Parameters
    ----------
    stored : ndarray of integers, shape (rows, columns)
        8 or 16-bit container.
    codes : ndarray of unsigned integers, shape (rows, columns)
        Of :func:`codes_of`.
    photometric : Photometric

    Returns
    -------
    ndarray of uint8, shape (256 or 65536,)
        By code.
    """
    every = np.arange(1 << 8 * codes.dtype.itemsize).astype(codes.dtype).view(stored.dtype)
    present = every if photometric.has_voi else _present(stored, codes.ravel(), every, photometric)
    full_range = None if photometric.has_voi else reference.range_of(_image_values(present, photometric))
    return _grey(every, photometric, full_range)


def _by_blocks(stored: NDArray[np.integer], photometric: Photometric) -> NDArray[np.uint8]:
    """Compute the grey of values too many to tabulate; a block's float64 is all the memory it takes."""
    blocks = [stored[start : start + _BLOCK] for start in range(0, stored.size, _BLOCK)]
    full_range = None
    if not photometric.has_voi:
        images = (_image_values(block, photometric) for block in blocks)
        ends = [end for image in images if image.size for end in (image.min(), image.max())]
        full_range = reference.range_of(np.array(ends))
    return np.concatenate([_grey(block, photometric, full_range) for block in blocks])


def _image_values(stored: NDArray[np.integer], photometric: Photometric) -> NDArray[np.float64]:
    """Return the modality values of what is no padding."""
    return reference.modality_values(stored[~reference.is_padding(stored, photometric)], photometric)


def _grey(
    stored: NDArray[np.integer], photometric: Photometric, full_range: tuple[float, float] | None
) -> NDArray[np.uint8]:
    """Return the grey of stored values."""
    values = reference.modality_values(stored, photometric)
    shown = reference.presentation(reference.voi_values(values, photometric, full_range), photometric)
    grey = reference.to_8_bit(shown)
    grey[reference.is_padding(stored, photometric)] = 0
    return grey


def _present(
    stored: NDArray[np.integer],
    codes: NDArray[np.unsignedinteger],
    every: NDArray[np.integer],
    photometric: Photometric,
) -> NDArray[np.integer]:
    """Return the distinct stored values, or as many as decide the full range."""
    if photometric.padding is None and photometric.modality_lut is None:
        return np.array([stored.min(), stored.max()])  # a rescale is monotonic
    seen = np.zeros(every.size, bool)
    for start in range(0, codes.size, _BLOCK):
        seen[codes[start : start + _BLOCK]] = True
    return every[seen]


def _look_up(table: NDArray[np.uint8], codes: NDArray[np.unsignedinteger]) -> NDArray[np.uint8]:
    grey = np.empty(codes.size, np.uint8)
    for start in range(0, codes.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        np.take(table, codes[block], out=grey[block], mode="clip")
    return grey
