"""Area under the ROC curve, with a bootstrap interval that draws patients, not images.

Images of one patient resemble each other. An interval that draws images as if they were independent is too
narrow, so whole patients are drawn, with all their images.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_auc_score

_DRAWS_AT_ONCE = 256


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
    truth, columns, patient_of = _checked(labels, scores, patients)
    count = int(patient_of.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = []
    for start in range(0, draws, _DRAWS_AT_ONCE):
        size = (min(_DRAWS_AT_ONCE, draws - start), count)
        times = np.apply_along_axis(np.bincount, 1, rng.integers(count, size=size), minlength=count)
        weights = times[:, patient_of].astype(np.float64)
        usable = (weights[:, truth].sum(1) > 0) & (weights[:, ~truth].sum(1) > 0)
        drawn.append(_weighted_auroc(truth, columns, weights[usable]))
    values = np.concatenate(drawn)
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return AurocInterval(
        value=float(np.mean([roc_auc_score(truth, column) for column in columns.T])),
        low=float(low),
        high=float(high),
        confidence=confidence,
        images=len(truth),
        positives=int(truth.sum()),
        patients=count,
        draws=len(values),
    )


def _checked(
    labels: ArrayLike, scores: ArrayLike, patients: ArrayLike
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.int64]]:
    """Return labels as bool (n,), scores as (n, k), and patients numbered from 0 (n,)."""
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
    if not np.isfinite(columns).all():
        raise ValueError("every score must be a finite number")
    truth = truth.astype(np.bool_)
    if truth.all() or not truth.any():
        missing = "negative" if truth.all() else "positive"
        raise ValueError(f"an AUROC needs both classes: there is no {missing} among {len(truth)} images")
    return truth, columns, np.unique(people, return_inverse=True)[1].reshape(-1)


def _weighted_auroc(
    truth: NDArray[np.bool_], columns: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the mean AUROC over columns for each row of image weights (draws, n)."""
    positive, negative = weights * truth, weights * ~truth
    total = positive.sum(1) * negative.sum(1)
    areas = []
    for column in columns.T:
        order = np.argsort(column, kind="stable")
        first_of_tie = np.flatnonzero(np.diff(column[order], prepend=-np.inf))
        positives = np.add.reduceat(positive[:, order], first_of_tie, axis=1)
        negatives = np.add.reduceat(negative[:, order], first_of_tie, axis=1)
        # A positive beats every negative of a lower score, and half of those of its own.
        beaten = np.cumsum(negatives, axis=1) - negatives / 2
        areas.append((positives * beaten).sum(1) / total)
    return np.mean(areas, axis=0)
