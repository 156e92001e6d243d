"""Area under the precision-recall curve: as average precision, and by the trapezoid rule."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.ranking import Ranking, once


def average_precision(
    truth: NDArray[np.bool_], ranking: Ranking, weights: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """Return each draw's average precision: precision at every threshold, weighted by its gain in recall.

    Parameters
    ----------
    truth : ndarray of bool, shape (n,)
        True where the finding is present.
    ranking : Ranking
        Of the n scores. Images of one score pass the threshold together.
    weights : ndarray of float, shape (n, d), optional
        How often each image is in each draw; by default once, in a single draw.

    Returns
    -------
    ndarray of float64, shape (d,)
        NaN where a draw lacks positives or negatives. A model that knows nothing gets the prevalence.
    """
    precision, gain, usable = _curve(truth, ranking, weights)
    return np.where(usable, (precision * gain).sum(0), np.nan)


def trapezoid_area(
    truth: NDArray[np.bool_], ranking: Ranking, weights: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """Return the area by straight lines between the points of the curve, begun at precision 1, recall 0.

    This is how CARZero's code measures it. It is too high for few positives, because precision does not
    move in straight lines (Davis and Goadrich, ICML 2006). Parameters and result as
    :func:`average_precision`.
    """
    precision, gain, usable = _curve(truth, ranking, weights)
    before = np.vstack([np.ones((1, precision.shape[1])), precision[:-1]])
    return np.where(usable, ((precision + before) / 2 * gain).sum(0), np.nan)


def _curve(
    truth: NDArray[np.bool_], ranking: Ranking, weights: NDArray[np.floating] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Return precision and gain in recall (t, d) from the highest threshold down, and which draws count."""
    weights = once(len(truth)) if weights is None else weights
    positive = ranking.totals(weights * truth[:, None])[::-1]
    passed = np.cumsum(ranking.totals(weights)[::-1], axis=0)
    found = np.cumsum(positive, axis=0)
    precision = np.divide(found, passed, out=np.ones_like(found), where=passed > 0)
    positives, images = positive.sum(0), weights.sum(0, dtype=np.float64)
    gain = np.divide(positive, positives, out=np.zeros_like(positive), where=positives > 0)
    return precision, gain, (positives > 0) & (positives < images)
