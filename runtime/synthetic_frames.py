"""Frames of 16 bits, made up, for the gate of an engine that prepares images.

Golden images are of 8 bits, and their sizes are few. DICOM has tables of 65,536 values, and every size that
the engine takes; so frames of the least, the tuned and the most rows and columns go beside them.
"""

from __future__ import annotations

import numpy as np

from promptray.runtime.dicom.greyscale import Tabulated
from promptray.runtime.engines.settings import Range

_VALUES = 1 << 16
_LEVELS = 256
#: Squares of one grey along a side of the picture: without structure, a picture of the wrong place or the
#: wrong way round would come out the same.
_SQUARES = 24


def frame_sizes(sides: Range, minimum: int) -> list[tuple[int, int]]:
    """Return rows and columns of the frames: the least square, then portrait and landscape, 5 to 4.

    Parameters
    ----------
    sides : Range
        What the engine takes.
    minimum : int
        Least side of an image that passes the door.
    """
    least = min(max(sides.least, minimum), sides.most)
    found = [(least, least)]
    for longer in (max(sides.tuned, least), sides.most):
        shorter = max(longer * 4 // 5, least)
        found += [(longer, shorter), (shorter, longer)]
    return list(dict.fromkeys(found))


def synthetic_frame(rows: int, columns: int) -> Tabulated:
    """Return squares of many greys, of stored values from all over 16 bits; the same each time.

    Every grey has 256 stored values, far from each other in the table.
    """
    random = np.random.default_rng(rows * _VALUES + columns)
    places = random.permutation(_VALUES).astype(np.uint16)
    table = np.empty(_VALUES, np.uint8)
    table[places] = np.arange(_VALUES) // _LEVELS
    squares = random.integers(0, _LEVELS, (_SQUARES, _SQUARES), np.uint16)
    down, across = (np.arange(side) * _SQUARES // side for side in (rows, columns))
    which = squares[down][:, across] * np.uint16(_LEVELS)
    which += random.integers(0, _LEVELS, (rows, columns), np.uint8)
    return Tabulated(places[which], table)
