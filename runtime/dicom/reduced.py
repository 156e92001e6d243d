"""JPEG 2000 decoded at a lower resolution than it has, for callers who asked for that."""

from __future__ import annotations

from pydicom import uid
from pydicom.dataset import Dataset

from promptray.runtime.dicom import j2k_decode
from promptray.runtime.dicom.coding import j2k_coding, j2k_levels
from promptray.runtime.dicom.facts import PixelFormat
from promptray.runtime.dicom.frame_bytes import frame_bytes
from promptray.runtime.dicom.photometric import Photometric
from promptray.runtime.dicom.pixels import Stored, checked_j2k, undecodable
from promptray.runtime.dicom.quiet import quietly

#: Without HTJ2K: of no stream of it was a lower resolution ever held against anything.
_SYNTAXES = frozenset({uid.JPEG2000Lossless, uid.JPEG2000})
#: XOsiz and YOsiz in the code stream (ISO 15444-1 A.5.1): where they are not 0, halves begin elsewhere.
_OFFSETS = slice(16, 24)


def reduced_values(
    dataset: Dataset, syntax: uid.UID, pixels: PixelFormat, photometric: Photometric, index: int, most: int
) -> tuple[Stored, int] | None:
    """Decode one frame at a lower resolution.

    Parameters
    ----------
    dataset, syntax, pixels, index
        As for :func:`promptray.runtime.dicom.pixels.stored_values`.
    photometric : Photometric
        What the values mean.
    most : int
        How often rows and columns may be halved.

    Returns
    -------
    (ndarray of unsigned integers, int) or None
        Stored values, and how often they were halved; None where the frame has to be decoded whole: another
        transfer syntax, values that are signed or shallower than their container says, padding (whose values
        would mix with the picture's), and no window (the range would be that of other values).

    Raises
    ------
    ImageError
        `image.broken` or `image.too-large`.
    """
    plain = photometric.has_voi and photometric.padding is None and not pixels.signed
    if syntax not in _SYNTAXES or not plain or pixels.high_bit != pixels.bits_stored - 1:
        return None
    stream, precision = checked_j2k(bytes(frame_bytes(dataset, syntax, pixels, index)), pixels)
    if precision != pixels.bits_stored or j2k_coding(stream, whole=False).signed or any(stream[_OFFSETS]):
        return None
    most = min(most, j2k_levels(stream))
    fitting = [n for n in range(1, most + 1) if _fits(pixels.rows, n) and _fits(pixels.columns, n)]
    if not fitting or not j2k_decode.takes(precision):
        return None
    reduction = fitting[-1]
    words = quietly(lambda: j2k_decode.decode_unsigned(stream, precision, reduction), undecodable)
    return words, reduction


def _fits(side: int, reduction: int) -> bool:
    """Tell whether Pillow makes room for all of a side: it rounds to the nearest, the standard up (B-15)."""
    return (side + (1 << reduction >> 1)) >> reduction == -(-side >> reduction)
