"""Images in the order of their scores, with ties kept together: what every rank statistic begins with."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Ranking:
    """The order of n scores, sorted once and used for many sets of weights.

    Parameters
    ----------
    scores : array_like of float, shape (n,)
        Finite numbers.

    Attributes
    ----------
    levels : ndarray of float64, shape (t,)
        The distinct scores, rising.
    level_of : ndarray of int, shape (n,)
        Which of them each image has.

    Raises
    ------
    ValueError
        If a score is not finite.
    """

    def __init__(self, scores: ArrayLike) -> None:
        values = np.asarray(scores, dtype=np.float64)
        if values.ndim != 1 or not np.isfinite(values).all():
            raise ValueError("every score must be a finite number, in one dimension")
        self.levels, self.level_of = np.unique(values, return_inverse=True)
        self._order = np.argsort(self.level_of, kind="stable")
        self._first = np.searchsorted(self.level_of[self._order], np.arange(len(self.levels)))

    def totals(self, weights: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the weight of all images of each level.

        Parameters
        ----------
        weights : ndarray of float, shape (n, d)
            One column per draw.

        Returns
        -------
        ndarray of float64, shape (t, d)
        """
        if not len(self.levels):
            return np.zeros((0, weights.shape[1]))
        total: NDArray[np.float64] = np.add.reduceat(
            weights[self._order], self._first, axis=0, dtype=np.float64
        )
        return total

    def midranks(self, weights: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return every image's rank, shape (n, d), ties sharing their mean rank.

        An image of weight 2 counts as two images of the same score.
        """
        total = self.totals(weights)
        return (np.cumsum(total, axis=0) - (total - 1) / 2)[self.level_of]


def once(count: int) -> NDArray[np.float32]:
    """Return the weights (count, 1) of the images as they are: each once."""
    return np.ones((count, 1), np.float32)
