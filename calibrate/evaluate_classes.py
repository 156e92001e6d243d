"""Findings that are alternatives, as one prediction: accuracy, and kappa where they are steps of a scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.bootstrap import patient_draws
from promptray.calibrate.evaluation_report import ClassesReport, estimate
from promptray.calibrate.kappa import confusion, quadratic_weighted_kappa
from promptray.calibrate.ranking import once
from promptray.calibrate.tables.labels import ABSENT, PRESENT


def evaluate_classes(
    keys: Sequence[str],
    labels: NDArray[np.int8],
    scores: NDArray[np.float64],
    patients: NDArray[np.int64],
    *,
    ordinal: bool,
    draws: int,
    seed: int,
    confidence: float,
) -> ClassesReport | None:
    """Take the highest score as the prediction, where the labels name exactly one of the findings.

    Parameters
    ----------
    keys : sequence of str
        The k findings, in the order of the scale where they are one.
    labels : ndarray of int8, shape (n, k)
        As ``Labels.values``. Images whose label is not 1 for one finding and 0 for all others are counted
        as unusable.
    scores : ndarray of float64, shape (n, k)
    patients : ndarray of int, shape (n,)
    ordinal : bool
        Whether the findings are the steps of a scale.
    draws, seed, confidence : int, int, float
        Of the intervals.

    Returns
    -------
    ClassesReport or None
        None where no image is usable.
    """
    settled = ((labels == PRESENT) | (labels == ABSENT)).all(1)
    usable = settled & ((labels == PRESENT).sum(1) == 1) & ~np.isnan(scores).any(1)
    if not usable.any():
        return None
    truth, predicted = np.argmax(labels[usable] == PRESENT, axis=1), np.argmax(scores[usable], axis=1)

    def tables(weights: NDArray[np.floating]) -> NDArray[np.float64]:
        return confusion(truth, predicted, len(keys), weights)

    blocks = [tables(weights) for weights in patient_draws(patients[usable], draws=draws, seed=seed)]
    counts = tables(once(len(truth)))
    kappa = quadratic_weighted_kappa(counts)
    return ClassesReport(
        keys=list(keys),
        ordinal=ordinal,
        images=len(truth),
        unusable=int((~usable).sum()),
        accuracy=estimate(_accuracy(counts), [_accuracy(block) for block in blocks], confidence),
        quadratic_kappa=estimate(kappa, [quadratic_weighted_kappa(block) for block in blocks], confidence)
        if ordinal and not np.isnan(kappa[0])
        else None,
        confusion=counts[:, :, 0].astype(int).tolist(),
    )


def _accuracy(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of right predictions of each table (steps, steps, d), shape (d,)."""
    share: NDArray[np.float64] = np.trace(counts) / counts.sum((0, 1))
    return share
