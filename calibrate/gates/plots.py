"""Plots of one finding: original against candidate, their difference, and both ROC curves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.gates.data import Floats
from promptray.calibrate.ranking import Ranking, once
from promptray.calibrate.svg import Plot, span

ABSENT, PRESENT, GREY = "#2166ac", "#b2182b", "#777777"
MOST_POINTS = 1000
_EXTREMES = 100


def drawn(original: Floats, candidate: Floats) -> NDArray[np.intp]:
    """Return which of n images are drawn: all, or the largest differences and others by a seeded lot."""
    order = np.argsort(-np.abs(candidate - original), kind="stable")
    if len(order) <= MOST_POINTS:
        return order
    others = np.random.default_rng(0).permutation(order[_EXTREMES:])
    return np.concatenate([order[:_EXTREMES], others[: MOST_POINTS - _EXTREMES]])


def scatter_plot(key: str, original: Floats, candidate: Floats, labels: Floats, threshold: float) -> str:
    """Plot the candidate's logits against the original's, with the threshold that flips are counted at.

    Parameters
    ----------
    original, candidate : ndarray of float64, shape (n,)
    labels : ndarray of float64, shape (n,)
        1 present (red), 0 absent (blue), NaN unknown (grey).
    threshold : float
    """
    rows, both = drawn(original, candidate), span(original, candidate, [threshold])
    plot = Plot(key, "original", "candidate", both, both)
    plot.line(both, both, GREY)
    plot.line([threshold, threshold], both, GREY, dashed=True)
    plot.line(both, [threshold, threshold], GREY, dashed=True)
    _points(plot, original[rows], candidate[rows], labels[rows])
    return plot.svg()


def bland_altman_plot(key: str, original: Floats, candidate: Floats, labels: Floats) -> str:
    """Plot difference against mean, with the mean difference and 1.96 standard deviations on either side.

    Bland and Altman, Lancet 1986. Parameters as :func:`scatter_plot`.
    """
    mean, delta = (original + candidate) / 2, candidate - original
    limits = delta.mean() + delta.std() * np.array([-1.96, 0.0, 1.96])
    rows, across = drawn(original, candidate), span(mean)
    plot = Plot(key, "mean of both", "candidate - original", across, span(delta, limits))
    for limit in limits:
        plot.line(across, [limit, limit], GREY, dashed=bool(limit != limits[1]))
    _points(plot, mean[rows], delta[rows], labels[rows])
    return plot.svg()


def roc_plot(key: str, original: Floats, candidate: Floats, labels: Floats) -> str | None:
    """Plot both ROC curves, the original's in grey; None where the labels lack one kind."""
    known = ~np.isnan(labels)
    truth = labels[known] == 1
    if truth.all() or not truth.any():
        return None
    plot = Plot(key, "1 - specificity", "sensitivity", (0.0, 1.0), (0.0, 1.0))
    plot.line([0, 1], [0, 1], GREY, dashed=True)
    for scores, colour in ((original, GREY), (candidate, PRESENT)):
        plot.line(*_roc(truth, Ranking(scores[known])), colour)
    return plot.svg()


def _roc(truth: NDArray[np.bool_], ranking: Ranking) -> tuple[Floats, Floats]:
    """Return 1 - specificity and sensitivity from the highest threshold down, at most about 400 points."""
    curves = []
    for kind in (~truth, truth):
        total = ranking.totals(once(len(truth)) * kind[:, None])[::-1, 0]
        curves.append(np.concatenate([[0.0], np.cumsum(total) / kind.sum()]))
    step = max(1, len(curves[0]) // 400)
    keep = np.unique(np.append(np.arange(0, len(curves[0]), step), len(curves[0]) - 1))
    return curves[0][keep], curves[1][keep]


def _points(plot: Plot, x: Floats, y: Floats, labels: Floats) -> None:
    kinds = ((np.isnan(labels), GREY), (labels == 0, ABSENT), (labels == 1, PRESENT))
    for rows, colour in kinds:
        if rows.any():
            plot.points(x[rows], y[rows], colour)
