"""The grey scale chain written for clarity, straight from PS3.3 C.11: one function per clause, float64.

    stored value -> modality LUT or rescale (C.11.1) -> VOI LUT or window (C.11.2)
                 -> presentation (C.7.6.3.1.2, C.11.6.1.2) -> 0..255, rounded half up

:mod:`promptray.runtime.dicom.greyscale` tabulates these functions; a test holds the two equal.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from promptray.runtime.dicom.photometric import LookupTable, Photometric
from promptray.runtime.errors import ImageError

Values = NDArray[np.float64]


def to_grey_reference(stored: NDArray[np.integer], photometric: Photometric) -> NDArray[np.uint8]:
    """Turn stored values into 8-bit grey, pixel by pixel.

    Padding becomes black (0) whatever the polarity. Without a window or VOI LUT the image's own least and
    greatest modality value (padding left out) become black and white.

    Parameters
    ----------
    stored : ndarray of integers, shape (rows, columns)
        Sign-extended, without overlay bits.
    photometric : Photometric
        Must have no `problem()`.

    Returns
    -------
    ndarray of uint8, shape (rows, columns)
    """
    padding = is_padding(stored, photometric)
    values = modality_values(stored, photometric)
    full_range = None if photometric.has_voi else range_of(values[~padding])
    grey = to_8_bit(presentation(voi_values(values, photometric, full_range), photometric))
    grey[padding] = 0
    return grey


def is_padding(stored: NDArray[np.integer], photometric: Photometric) -> NDArray[np.bool_]:
    """Tell which stored values are padding: Pixel Padding Value to Range Limit, inclusive (C.7.5.1.1.2)."""
    if photometric.padding is None:
        return np.zeros(stored.shape, bool)
    low, high = photometric.padding
    wide = stored.astype(np.int64)
    return (wide >= low) & (wide <= high)


def modality_values(stored: NDArray[np.integer], photometric: Photometric) -> Values:
    """Apply the Modality LUT Sequence, or Rescale Slope and Intercept (C.11.1.1)."""
    if photometric.modality_lut is not None:
        return look_up(stored.astype(np.float64), photometric.modality_lut)
    return stored.astype(np.float64) * photometric.rescale_slope + photometric.rescale_intercept


def voi_values(values: Values, photometric: Photometric, full_range: tuple[float, float] | None) -> Values:
    """Map modality values to 0..255 (not yet rounded) by VOI LUT, window or `full_range`, in this order."""
    if photometric.voi_lut is not None:
        return look_up(values, photometric.voi_lut) * (255.0 / ((1 << photometric.voi_lut.bits) - 1))
    if photometric.window is not None:
        return WINDOWS[photometric.voi_function](values, *photometric.window)
    if full_range is None:
        raise ValueError("without VOI the full range must be given")
    low, high = full_range
    return (values - low) / (high - low) * 255.0


def range_of(values: Values) -> tuple[float, float]:
    """Return the least and greatest of an image's modality values; refuse an image of one value."""
    if values.size == 0 or values.min() == values.max():
        raise ImageError(
            "image.constant", "apart from padding the image holds a single value", expected="an exposed image"
        )
    return float(values.min()), float(values.max())


def look_up(values: Values, table: LookupTable) -> Values:
    """Look values up; those outside the table take its first or last entry (C.11.1.1, C.11.2.1.1).

    A table is indexed by integers; a fractional modality value takes the entry below it. The small term is
    for whole numbers that binary arithmetic puts just below: 0.29 * 100 is 28.999999999999996.
    """
    index = np.clip(np.floor(values + 1e-6) - table.first, 0, table.entries.size - 1).astype(np.intp)
    return table.entries[index].astype(np.float64)


def window_linear(values: Values, center: float, width: float) -> Values:
    """Apply the LINEAR window of C.11.2.1.2.1 with ymin 0 and ymax 255.

    if x <= c - 0.5 - (w - 1) / 2 then ymin; else if x > c - 0.5 + (w - 1) / 2 then ymax;
    else ((x - (c - 0.5)) / (w - 1) + 0.5) * (ymax - ymin) + ymin. A width of 1 is a threshold.
    """
    middle, half = center - 0.5, (width - 1.0) / 2.0
    inside = ((values - middle) / (width - 1.0 or 1.0) + 0.5) * 255.0
    return _outside(inside, values <= middle - half, values > middle + half)


def window_linear_exact(values: Values, center: float, width: float) -> Values:
    """Apply the LINEAR_EXACT window of C.11.2.1.3.2 with ymin 0 and ymax 255.

    if x <= c - w / 2 then ymin; else if x > c + w / 2 then ymax; else ((x - c) / w + 0.5) * (ymax - ymin).
    """
    inside = ((values - center) / width + 0.5) * 255.0
    return _outside(inside, values <= center - width / 2.0, values > center + width / 2.0)


def window_sigmoid(values: Values, center: float, width: float) -> Values:
    """Apply the SIGMOID window of C.11.2.1.3.1 with ymin 0 and ymax 255.

    y = (ymax - ymin) / (1 + exp(-4 (x - c) / w)); the exponent is cut at 700, where y is 0 in 8 bits.
    """
    return 255.0 / (1.0 + np.exp(np.minimum(-4.0 * (values - center) / width, 700.0)))


WINDOWS = {"LINEAR": window_linear, "LINEAR_EXACT": window_linear_exact, "SIGMOID": window_sigmoid}


def presentation(values: Values, photometric: Photometric) -> Values:
    """Invert MONOCHROME1 (equivalently, presentation LUT shape INVERSE): its least value is white."""
    return 255.0 - values if photometric.inverted else values


def to_8_bit(values: Values) -> NDArray[np.uint8]:
    """Round half up to 0..255."""
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def _outside(inside: Values, below: ArrayLike, above: ArrayLike) -> Values:
    return np.where(below, 0.0, np.where(above, 255.0, inside))
