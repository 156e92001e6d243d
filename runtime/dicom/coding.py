"""What a compressed frame says of its own loss and sign: the transfer syntax says neither for certain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from promptray.runtime.jpeg_markers import MAX_SEGMENTS, START_OF_SCAN, segments

_COD, _COC, _SOT, _SOD = 0xFF52, 0xFF53, 0xFF90, 0xFF93
_SIZ_SIGN = 42  # where the first component's Ssiz is, behind SOC and the marker SIZ
#: Where the wavelet stands in COD and, with fewer than 257 components, in COC (ISO 15444-1 A.6.1, A.6.2).
_WAVELET = {_COD: 9, _COC: 6}
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
        With a readable SIZ.
    whole : bool
        The transfer syntax promises that nothing was cut off, which no marker tells.
    """
    wavelets = list(_wavelets(code_stream))
    reversible = bool(wavelets) and set(wavelets) == {_REVERSIBLE_5_3}
    return Coding(reversible, 0 if reversible and whole else None, signed=code_stream[_SIZ_SIGN] >= 0x80)


def _wavelets(code_stream: bytes) -> Iterator[int | None]:
    """Yield the wavelet of every COD and COC of the main header and the tile-part headers (A.3)."""
    position, tile_end = 2, 0
    for _ in range(MAX_SEGMENTS):
        marker = int.from_bytes(code_stream[position : position + 2], "big")
        length = int.from_bytes(code_stream[position + 2 : position + 4], "big")
        body = code_stream[position + 4 : position + 2 + length]
        if marker == _SOT and len(body) == 8:
            part = int.from_bytes(body[2:6], "big")
            tile_end = position + part if part else len(code_stream)  # 0: up to the end (A.4.2)
        if marker == _SOD:
            position = tile_end
        elif marker < 0xFF4F or length < 2:
            return
        else:
            if marker in _WAVELET:
                place = _WAVELET[marker]
                yield body[place] if place < len(body) else None
            position += 2 + length
    yield None  # more segments than are looked at
