"""Agreement of two heat maps of one image and finding, cell by cell on the model's grid.

Two numbers, because they see different things. The *correlation* of all cells (Pearson) is 1 where one map is
the other times a positive factor plus a constant; a map is read by its shape, not by its height. The
*overlap* of the top cells asks where the eye is led: the share of the original's highest tenth of the cells
that is also in the candidate's.

Every image counts, with or without the finding: a map that changes on a normal image misleads as well.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

TOP = 0.1


def map_correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the correlation of each pair of maps.

    Parameters
    ----------
    one, other : ndarray of float, shape (n, r, c)

    Returns
    -------
    ndarray of float64, shape (n,)
        Where a map is the same in every cell: 1 if the other is the same map, otherwise 0.
    """
    first, second = (np.asarray(maps, np.float64).reshape(len(maps), -1) for maps in (one, other))
    equal = (first == second).all(1)
    flat = (np.ptp(first, axis=1) == 0) | (np.ptp(second, axis=1) == 0)
    first, second = (maps - maps.mean(1, keepdims=True) for maps in (first, second))
    size = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    usable = ~flat & (size > 0)
    found = np.divide((first * second).sum(1), size, out=np.zeros(len(first)), where=usable)
    return np.where(equal, 1.0, np.clip(found, -1.0, 1.0))


def top_overlap(
    one: NDArray[np.floating], other: NDArray[np.floating], top: float = TOP
) -> NDArray[np.float64]:
    """Return the share of the first map's highest cells that is among the other's highest.

    Parameters
    ----------
    one, other : ndarray of float, shape (n, r, c)
    top : float
        Share of the cells that is compared, rounded up to whole cells. Of equal cells the first in reading
        order is taken, on both sides alike.

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    first, second = (np.asarray(maps, np.float64).reshape(len(maps), -1) for maps in (one, other))
    count = math.ceil(top * first.shape[1])
    highest = [np.argsort(-maps, axis=1, kind="stable")[:, :count] for maps in (first, second)]
    marked = np.zeros(first.shape, np.int8)
    for places in highest:
        np.put_along_axis(marked, places, np.take_along_axis(marked, places, 1) + 1, 1)
    shared: NDArray[np.float64] = (marked == 2).sum(1) / count
    return shared
