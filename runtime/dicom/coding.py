"""What a compressed frame says of its own loss and sign: the transfer syntax says neither for certain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from promptray.runtime.dicom.j2k_stream import COC, COD, header_segments
from promptray.runtime.jpeg_markers import START_OF_SCAN, segments

_SIZ_SIGN = 42  # where the first component's Ssiz is, behind SOC and the marker SIZ
#: Where the wavelet stands in COD and, with fewer than 257 components, in COC (ISO 15444-1 A.6.1, A.6.2).
_WAVELET = {COD: 9, COC: 6}
_LEVELS_BEFORE_WAVELET = 4
_REVERSIBLE_5_3 = 1


@dataclass(frozen=True)
class Coding:
    """How a frame was coded.

    Attributes
    ----------
    reversible : bool
        Nothing in the coding process rounds. A reversible JPEG 2000 stream may be cut short all the same.
    error : int or None
        The most that a decoded sample can be wrong by, 0 where lossless; None where nothing says it.
    signed : bool or None
        Whether samples are negative below zero; None for processes that know no sign.
    """

    reversible: bool
    error: int | None
    signed: bool | None = None


LOSSLESS = Coding(reversible=True, error=0)
LOSSY = Coding(reversible=False, error=None)


def jpeg_ls_coding(frame: bytes) -> Coding:
    """Return how a JPEG-LS frame of one component was coded, by its NEAR (ISO 14495-1 C.2.3)."""
    scan = next((body for marker, body, _ in segments(frame) if marker == START_OF_SCAN), b"")
    if len(scan) != 6 or scan[5]:  # a point transform drops bits that no decoder restores
        return LOSSY
    return Coding(reversible=scan[3] == 0, error=scan[3])


def j2k_coding(code_stream: bytes, *, whole: bool) -> Coding:
    """Return how a JPEG 2000 or HTJ2K code stream was coded, by the wavelet of every tile.

    Parameters
    ----------
    code_stream : bytes
        That :func:`promptray.runtime.dicom.j2k_stream.check_j2k` accepts.
    whole : bool
        The transfer syntax promises that nothing was cut off, which no marker tells.
    """
    wavelets = list(_wavelets(code_stream))
    reversible = bool(wavelets) and set(wavelets) == {_REVERSIBLE_5_3}
    return Coding(reversible, 0 if reversible and whole else None, signed=code_stream[_SIZ_SIGN] >= 0x80)


def j2k_levels(code_stream: bytes) -> int:
    """Return how often every tile was halved: as many resolutions can be left out."""
    levels = [
        body[_WAVELET[marker] - _LEVELS_BEFORE_WAVELET]
        for marker, body in header_segments(code_stream)
        if marker in _WAVELET and len(body) > _WAVELET[marker]
    ]
    return min(levels, default=0)


def _wavelets(code_stream: bytes) -> Iterator[int | None]:
    """Yield the wavelet of every COD and COC of the main header and the tile-part headers (A.3)."""
    for marker, body in header_segments(code_stream):
        if marker in _WAVELET:
            place = _WAVELET[marker]
            yield body[place] if place < len(body) else None
