"""The operating point that decisions are compared at where no threshold is stored."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Share of the images that reach it.
REFERENCE_RATE = 0.1


def reference_threshold(logits: NDArray[np.float64], rate: float = REFERENCE_RATE) -> float:
    """Return the operating point where none is stored: about this share of the images is flagged.

    It lies midway between the lowest flagged logit and the highest one below. On an image's own logit, the
    last bit of that image would decide, and rounding alone would flip it.

    Parameters
    ----------
    logits : ndarray of float64, shape (n,)
        The original's, of one finding.
    rate : float
        Share of the images, 0 to 1.
    """
    levels = np.unique(logits)
    lowest = np.quantile(logits, 1 - rate, method="higher")
    place = int(np.searchsorted(levels, lowest))
    return float(levels[place] if place == 0 else (levels[place - 1] + levels[place]) / 2)
