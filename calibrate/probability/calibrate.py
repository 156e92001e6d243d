"""Calibrate one finding on a site's labelled images: the curve for the runtime, and how good it is."""

from __future__ import annotations

import datetime

import msgspec
import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.bootstrap import patient_draws
from promptray.calibrate.evaluation_report import Estimate, estimate
from promptray.calibrate.probability.calibration_error import (
    Floats,
    bias,
    brier_score,
    calibration_error,
    equal_bins,
    error_by_chance,
)
from promptray.calibrate.probability.fit import WAYS, fit
from promptray.calibrate.probability.folds import FOLDS, patient_folds
from promptray.calibrate.probability.sample import Sample, require
from promptray.calibrate.rate import independent_decisions, rate_interval
from promptray.runtime.calibration import Calibration, Method

CONFIDENCE = 0.95


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the report's structures: immutable, keyword-only, closed."""


class ReliabilityBin(_Struct, frozen=True):
    """Images of about the same probability: how often the finding was there."""

    images: int
    probability: float
    """Mean of the images."""
    rate: float
    low: float
    high: float


class CalibrationReport(_Struct, frozen=True):
    """How good the probabilities are, measured on patients that the curve was not fitted on."""

    calibration: Calibration
    folds: int
    seed: int
    draws: int
    confidence: float
    positive_patients: int
    negative_patients: int
    prevalence: float
    """Share of positives among the images: the probabilities hold where it is alike."""
    brier: Estimate
    brier_of_prevalence: float
    """What the same probability for everyone would get; a useful curve is below."""
    calibration_error: Estimate
    error_by_chance: float
    """What perfect probabilities would get on as many images; compare with it, not with 0."""
    bias: Estimate
    """Mean probability less prevalence."""
    bins: list[ReliabilityBin]

    @property
    def off(self) -> bool:
        """Whether the probabilities are further from what happens than chance explains."""
        low = self.calibration_error.low
        return low is not None and low > self.error_by_chance


def calibrate(
    method: Method,
    sample: Sample,
    *,
    bundle: str,
    date: datetime.date | None = None,
    folds: int = FOLDS,
    draws: int = 1000,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> CalibrationReport:
    """Fit a curve on all images, and measure its kind on held-out patients.

    Each image's probability comes from a curve that was fitted on other patients. Intervals draw patients.

    Parameters
    ----------
    method : {"platt", "temperature", "isotonic"}
    sample : Sample
        Of n labelled images.
    bundle : str
        sha256 of the bundle that gave the logits.
    date : datetime.date, optional
        Today, UTC, by default.
    folds, draws, seed, confidence
        Of the cross-validation and the intervals.

    Raises
    ------
    BuildError
        ``calibration.too-few`` with the number of patients that would be enough; ``calibration.unfit``.
    """
    require_enough_to_fit(method, sample)
    curve = fit(method, sample)
    held_out = held_out_probabilities(method, sample, folds=folds, seed=seed)
    bins, truth = equal_bins(held_out), sample.truth
    blocks = list(patient_draws(sample.patients, draws=draws, seed=seed))

    def with_interval(value: Floats, drawn: list[Floats]) -> Estimate:
        return estimate(value, drawn, confidence)

    return CalibrationReport(
        calibration=Calibration(
            finding=sample.finding,
            bundle=bundle,
            curve=curve,
            images=len(truth),
            positives=int(truth.sum()),
            patients=len(np.unique(sample.patients)) if sample.named else None,
            date=(date or datetime.datetime.now(datetime.timezone.utc).date()).isoformat(),
        ),
        folds=folds,
        seed=seed,
        draws=draws,
        confidence=confidence,
        positive_patients=sample.positive_patients,
        negative_patients=sample.negative_patients,
        prevalence=float(truth.mean()),
        brier=with_interval(
            brier_score(held_out, truth), [brier_score(held_out, truth, block) for block in blocks]
        ),
        brier_of_prevalence=float(truth.mean() * (1 - truth.mean())),
        calibration_error=_error(held_out, sample, bins, blocks, confidence),
        error_by_chance=error_by_chance(held_out, bins, seed=seed),
        bias=with_interval(bias(held_out, truth), [bias(held_out, truth, block) for block in blocks]),
        bins=[_bin(sample, held_out, bins == number, confidence) for number in range(bins.max() + 1)],
    )


def require_enough_to_fit(method: Method, sample: Sample) -> None:
    """Refuse a sample with too few patients for a curve; its logits are not looked at.

    Raises
    ------
    BuildError
        ``calibration.too-few`` with the number of patients that would be enough.
    """
    least = WAYS[method].least
    require(sample, least, least, f"calibration by {method}")


def _error(
    held_out: Floats,
    sample: Sample,
    bins: NDArray[np.int64],
    blocks: list[NDArray[np.float32]],
    confidence: float,
) -> Estimate:
    """Return the calibration error, its interval shifted by the bias of the bootstrap.

    A mean of distances grows with noise, and a draw of patients is noisier than the patients: draws lie above
    the value on average. By as much they are moved down (Efron and Tibshirani, 1993, chapter 10), but not
    below 0.
    """
    value = calibration_error(held_out, sample.truth, bins)
    drawn = np.concatenate([calibration_error(held_out, sample.truth, bins, block) for block in blocks])
    return estimate(value, [np.maximum(drawn - (drawn.mean() - value[0]), 0.0)], confidence)


def held_out_probabilities(method: Method, sample: Sample, *, folds: int = FOLDS, seed: int = 0) -> Floats:
    """Return each image's probability by a curve fitted on other patients, shape (n,)."""
    held_out = np.empty(len(sample.truth))
    for fitted, measured in patient_folds(sample, folds=folds, seed=seed):
        held_out[measured] = fit(method, sample.take(fitted)).apply(sample.logits[measured])
    return held_out


def _bin(sample: Sample, held_out: Floats, rows: NDArray[np.bool_], confidence: float) -> ReliabilityBin:
    events, images = int(sample.truth[rows].sum()), int(rows.sum())
    rate, low, high = rate_interval(events, images, independent_decisions(sample.patients[rows]), confidence)
    return ReliabilityBin(
        images=images, probability=float(held_out[rows].mean()), rate=rate, low=low, high=high
    )
