"""Spearman's rank correlation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.ranking import Ranking, once


def spearman(
    one: Ranking, other: Ranking, weights: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """Return the rank correlation of each draw: Pearson's correlation of the ranks, ties sharing a rank.

    Parameters
    ----------
    one, other : Ranking
        Of the same n images, in the same order.
    weights : ndarray of float, shape (n, d), optional
        How often each image is in each draw; by default once, in a single draw.

    Returns
    -------
    ndarray of float64, shape (d,)
        NaN where one side gives every drawn image the same score.
    """
    weights = once(len(one.level_of)) if weights is None else weights
    total = weights.sum(0, dtype=np.float64)
    centred = [
        ranks - (weights * ranks).sum(0) / total for ranks in (one.midranks(weights), other.midranks(weights))
    ]
    product = (weights * centred[0] * centred[1]).sum(0)
    size = np.sqrt((weights * centred[0] ** 2).sum(0) * (weights * centred[1] ** 2).sum(0))
    return np.divide(product, size, out=np.full(size.shape, np.nan), where=size > 0)
