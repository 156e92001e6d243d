"""How much of a picture's resolution its network needs."""

from __future__ import annotations

import math

from promptray.runtime.bundle.image_rules import Preprocessing
from promptray.runtime.bundle.validate_preprocessing import RESIZES
from promptray.runtime.preprocess import resized_size

#: A reduced picture keeps at least this many times the rows and columns of its resize, so that every level
#: that the network sees is still the mean of several.
MARGIN = 2
#: More often no code stream can be halved (ISO 15444-1, Table A.15).
MOST_HALVINGS = 32


def halvings(spec: Preprocessing, rows: int, columns: int, *, most: int = MOST_HALVINGS) -> int:
    """Return how often a picture may be halved before the first step of its preprocessing.

    Parameters
    ----------
    spec : Preprocessing
        Of the bundle.
    rows, columns : int
        Of the picture.
    most : int, optional
        Never more often than that.

    Raises
    ------
    ImageError
        ``image.too-small`` or ``image.too-large``, as the resize itself.
    """
    first = spec.steps[0]
    if not isinstance(first, RESIZES):
        return 0
    height, width = resized_size(first, rows, columns)
    return min(most, max(0, math.floor(math.log2(min(rows / height, columns / width) / MARGIN))))
