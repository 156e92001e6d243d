"""The labelled images of one finding, and whether they are enough."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from promptray.calibrate.auroc import auroc
from promptray.calibrate.ranking import Ranking
from promptray.calibrate.rate import independent_decisions
from promptray.runtime.errors import BuildError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sample:
    """n images whose label is known.

    Attributes
    ----------
    finding : str
    logits : ndarray of float64, shape (n,)
    truth : ndarray of bool, shape (n,)
    patients : ndarray of int, shape (n,)
        Numbered from 0.
    named : bool
        Whether they are known; else every picture is taken for a patient's only one.
    """

    finding: str
    logits: Floats
    truth: NDArray[np.bool_]
    patients: NDArray[np.int64]
    named: bool

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Sample:
        """Return some of the images."""
        return Sample(self.finding, self.logits[rows], self.truth[rows], self.patients[rows], self.named)

    @property
    def positive_patients(self) -> int:
        """What the images with the finding are worth as independent ones."""
        return _worth(self.patients[self.truth])

    @property
    def negative_patients(self) -> int:
        """What the images without the finding are worth as independent ones."""
        return _worth(self.patients[~self.truth])


def sample(
    finding: str,
    logits: ArrayLike,
    labels: ArrayLike,
    patients: ArrayLike | None = None,
    *,
    named: bool = True,
) -> Sample:
    """Check one finding's logits and labels, and keep the images whose label is known.

    Parameters
    ----------
    finding : str
    logits : array_like of float, shape (m,)
    labels : array_like of float, shape (m,)
        1 present, 0 absent, NaN unknown.
    patients : array_like, shape (m,), optional
        By default they are not known, and every image is taken for a patient's only one.
    named : bool
        False: `patients` are not known, and say only which images are one picture.

    Raises
    ------
    BuildError
        ``score.not-finite``.
    ValueError
        If the shapes disagree or a label is none of 1, 0, NaN.
    """
    scores, marks = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    people = np.arange(len(scores)) if patients is None else np.asarray(patients)
    if scores.ndim != 1 or scores.shape != marks.shape or scores.shape != people.shape:
        raise ValueError(f"logits, labels, patients: {scores.shape}, {marks.shape}, {people.shape}")
    known = ~np.isnan(marks)
    if not np.isin(marks[known], (0, 1)).all():
        raise ValueError("a label is 1, 0 or NaN")
    if not np.isfinite(scores).all():
        raise BuildError(
            "score.not-finite",
            "a logit that is to be calibrated is not finite",
            artefact=finding,
            found=f"{int((~np.isfinite(scores)).sum())} of {len(scores)} images",
            cure="find out why the model gave it; `promptray verify` tests the bundle",
        )
    number = np.unique(people[known], return_inverse=True)[1].reshape(-1)
    return Sample(finding, scores[known], marks[known] == 1, number, named and patients is not None)


def require(found: Sample, positives: int, negatives: int, purpose: str) -> None:
    """Refuse a sample with too few patients with or without the finding.

    Raises
    ------
    BuildError
        ``calibration.too-few``, with the number that would be enough.
    """
    there = found.positive_patients, found.negative_patients
    if there[0] >= positives and there[1] >= negatives:
        return
    raise BuildError(
        "calibration.too-few",
        f"too few patients for {purpose}",
        artefact=found.finding,
        expected=f"{positives} patients with the finding and {negatives} without",
        found=f"{there[0]} and {there[1]}",
        cure=_cure(there, (positives, negatives)),
    )


def require_order(found: Sample) -> None:
    """Refuse scores that do not rank the labels: no curve and no threshold makes sense of them.

    Raises
    ------
    BuildError
        ``calibration.unfit``.
    """
    area = float(auroc(found.truth, Ranking(found.logits))[0])
    if not area > 0.5:
        raise unfit(found, f"an AUROC of {area:.3f}")


def unfit(found: Sample, what: str) -> BuildError:
    """Return the refusal of scores that do not rank the labels; `what` was found instead."""
    return BuildError(
        "calibration.unfit",
        "higher logits do not mean more of the finding",
        artefact=found.finding,
        expected="logits that rank the labelled images",
        found=what,
        cure="check the labels, and with `promptray evaluate` the AUROC of this finding",
    )


def _cure(there: tuple[int, int], least: tuple[int, int]) -> str:
    if not all(there):
        return "label images of patients of both kinds"
    times = max(least[0] / there[0], least[1] / there[1])
    return f"label images of about {math.ceil(times * sum(there))} patients, if the mix stays"


def _worth(patients: NDArray[np.int64]) -> int:
    return independent_decisions(patients) if len(patients) else 0
