"""Bits stored out of their containers: high bit, overlay bits and sign (PS3.5 8.1.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.dicom.coding import Coding
from promptray.runtime.dicom.damage import broken
from promptray.runtime.dicom.facts import PixelFormat

#: What an unbounded loss is believed to add to a sample: a sixteenth of the range of the bits up to high bit.
_OVERSHOOT_SHIFT = 4


def significant(words: NDArray[np.unsignedinteger], pixels: PixelFormat) -> NDArray[np.integer]:
    """Cut the stored bits out of containers of bits allocated, and extend the sign."""
    above = pixels.bits_allocated - 1 - pixels.high_bit
    beside = pixels.bits_allocated - pixels.bits_stored
    if pixels.signed:
        signed = words.view(f"i{words.dtype.itemsize}")
        return (words << above).view(signed.dtype) >> beside if beside else signed
    if beside and (above != beside or words.max() >> pixels.bits_stored):
        return (words << above) >> beside
    return words


def decoded_bits(
    samples: NDArray[np.integer], precision: int, pixels: PixelFormat, coding: Coding
) -> NDArray[np.integer]:
    """Return the stored values of a decoded frame whose samples may be deeper than bits stored.

    What stands above the high bit is an overlay where the frame is lossless, and cut off. In a lossy frame it
    is the overshoot of a sample near the end of its range; cutting that would turn white into black, so it
    stays. Where it could be either, the frame is refused.

    Parameters
    ----------
    samples : ndarray of integers, shape (rows, columns)
        Of at most bits allocated.
    precision : int
        Bits per sample of the code stream.

    Raises
    ------
    ImageError
        `image.broken` where overlay and loss cannot be told apart, or the sign is unknown.
    """
    _check_sign(precision, pixels, coding)
    container = f"u{pixels.bits_allocated // 8}"
    words = samples.astype(container, copy=False)
    if precision <= pixels.high_bit + 1 or coding.error == 0:
        return significant(words, pixels)
    numbers = _as_numbers(words, precision, pixels)
    depth = pixels.high_bit + 1
    low, high = (-(1 << depth - 1), (1 << depth - 1) - 1) if pixels.signed else (0, (1 << depth) - 1)
    beyond = max(int(numbers.max()) - high, low - int(numbers.min()), 0)
    error = (1 << depth >> _OVERSHOOT_SHIFT) if coding.error is None else coding.error
    if beyond == 0 or (coding.reversible and beyond > error):
        return significant(words, pixels)
    if coding.reversible or beyond > error or pixels.bits_stored != depth:
        raise broken("the compressed frame goes beyond bits stored, by overlays or by loss: nobody knows")
    return numbers


def _as_numbers(
    words: NDArray[np.unsignedinteger], precision: int, pixels: PixelFormat
) -> NDArray[np.integer]:
    """Return samples of `precision` bits as numbers, negative ones where the tag says so."""
    if not pixels.signed:
        return words
    shift = pixels.bits_allocated - precision
    return (words << shift).view(f"i{words.dtype.itemsize}") >> shift


def _check_sign(precision: int, pixels: PixelFormat, coding: Coding) -> None:
    """Refuse samples whose sign is unknown.

    Writers exist that declare two's complement unsigned in JPEG 2000; of a lossless stream the bits are right
    nevertheless.
    """
    if pixels.signed and precision < pixels.bits_stored:
        raise broken("the compressed frame is signed, but shallower than bits stored")
    if coding.signed is None or coding.signed == pixels.signed:
        return
    if coding.signed or coding.error != 0:
        raise broken("the compressed frame's own sign contradicts the pixel representation")
