"""Area under the ROC curve, with a bootstrap interval that draws patients, not images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from promptray.calibrate.bootstrap import patient_draws
from promptray.calibrate.ranking import Ranking, once


@dataclass(frozen=True)
class AurocInterval:
    """An AUROC and what it rests on.

    Attributes
    ----------
    value, low, high : float
        The AUROC of all images, and the percentile interval of the drawn ones.
    confidence : float
        For example 0.95.
    images, positives, patients : int
        What was measured; an interval without them says little.
    draws : int
        Draws that held both classes; only these count.
    """

    value: float
    low: float
    high: float
    confidence: float
    images: int
    positives: int
    patients: int
    draws: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for a JSON report."""
        return asdict(self)

    def __str__(self) -> str:
        """Say it as a table does: ``0.912 (0.861 to 0.955; 144 images of 123 patients)``."""
        return (
            f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}; "
            f"{self.images} images of {self.patients} patients)"
        )


def auroc(
    truth: NDArray[np.bool_], ranking: Ranking, weights: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """Return the AUROC of each draw: how often a positive outranks a negative, a tie counting one half.

    Mann and Whitney's U over the number of pairs (Hanley and McNeil, Radiology 1982).

    Parameters
    ----------
    truth : ndarray of bool, shape (n,)
        True where the finding is present.
    ranking : Ranking
        Of the n scores.
    weights : ndarray of float, shape (n, d), optional
        How often each image is in each draw; by default once, in a single draw.

    Returns
    -------
    ndarray of float64, shape (d,)
        NaN where a draw lacks positives or negatives.
    """
    weights = once(len(truth)) if weights is None else weights
    positive = ranking.totals(weights * truth[:, None])
    negative = ranking.totals(weights * ~truth[:, None])
    beaten = np.cumsum(negative, axis=0) - negative / 2
    pairs = positive.sum(0) * negative.sum(0)
    return np.divide((positive * beaten).sum(0), pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0)


def auroc_interval(
    labels: ArrayLike,
    scores: ArrayLike,
    patients: ArrayLike,
    *,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> AurocInterval:
    """Measure the AUROC of n images, with a percentile interval over patients drawn with replacement.

    Parameters
    ----------
    labels : array_like of bool or 0/1, shape (n,)
        True where the finding is present.
    scores : array_like of float, shape (n,) or (n, k)
        Higher means more likely present. Of k columns (wordings of one finding, say) the mean AUROC is taken.
    patients : array_like, shape (n,)
        Which patient each image is of.
    confidence : float
        Share of the draws inside the interval.
    draws : int
        Number of bootstrap draws.
    seed : int
        The same seed gives the same interval.

    Raises
    ------
    ValueError
        If the shapes disagree, a score is not finite, a label is not 0 or 1, or one class is missing.

    Examples
    --------
    >>> auroc_interval([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], ["a", "b", "c", "d"]).value
    0.75
    """
    truth, rankings, patient_of = _checked(labels, scores, patients)

    def mean(weights: NDArray[np.floating] | None = None) -> NDArray[np.float64]:
        found: NDArray[np.float64] = np.mean([auroc(truth, each, weights) for each in rankings], axis=0)
        return found

    drawn = np.concatenate([mean(block) for block in patient_draws(patient_of, draws=draws, seed=seed)])
    values = drawn[~np.isnan(drawn)]
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return AurocInterval(
        value=float(mean()[0]),
        low=float(low),
        high=float(high),
        confidence=confidence,
        images=len(truth),
        positives=int(truth.sum()),
        patients=int(patient_of.max()) + 1,
        draws=len(values),
    )


def _checked(
    labels: ArrayLike, scores: ArrayLike, patients: ArrayLike
) -> tuple[NDArray[np.bool_], list[Ranking], NDArray[np.int64]]:
    """Return labels as bool (n,), a ranking per column of scores, and patients numbered from 0 (n,)."""
    truth, columns = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    columns = columns[:, None] if columns.ndim == 1 else columns
    people = np.asarray(patients)
    if truth.ndim != 1 or columns.ndim != 2 or not len(truth) == len(columns) == len(people):
        raise ValueError(
            f"labels, scores and patients must have one row per image; "
            f"their shapes are {truth.shape}, {np.shape(scores)} and {people.shape}"
        )
    if not np.isin(truth, (0, 1)).all():
        raise ValueError("labels must be 0 or 1: leave out images whose label is unknown")
    truth = truth.astype(np.bool_)
    if truth.all() or not truth.any():
        missing = "negative" if truth.all() else "positive"
        raise ValueError(f"an AUROC needs both classes: there is no {missing} among {len(truth)} images")
    rankings = [Ranking(column) for column in columns.T]
    return truth, rankings, np.unique(people, return_inverse=True)[1].reshape(-1)
