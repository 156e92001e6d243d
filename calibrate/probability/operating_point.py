"""Thresholds that keep a sensitivity, or a specificity, on a site's labelled images.

A threshold that is chosen and measured on the same images looks better than it is. So what it keeps is
measured on patients that had no part in choosing it: chosen anew without each fold, and applied to the fold.
"""

from __future__ import annotations

import datetime

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.bootstrap import patient_draws, percentile_interval
from promptray.calibrate.gates.verdict import LEAST_PATIENTS, decisions_to_settle
from promptray.calibrate.probability.folds import FOLDS, patient_folds
from promptray.calibrate.probability.sample import Floats, Sample, require, require_order
from promptray.calibrate.ranking import Ranking, once
from promptray.calibrate.rate import rate_interval
from promptray.runtime.operating_point import OperatingPoint, Rule, Share

CONFIDENCE = 0.95
MARGIN = 0.1


def operating_point(
    rule: Rule,
    sample: Sample,
    *,
    bundle: str,
    target: float = 0.95,
    margin: float = MARGIN,
    date: datetime.date | None = None,
    folds: int = FOLDS,
    draws: int = 1000,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> OperatingPoint:
    """Choose the threshold that keeps the target and gives the most of the other.

    Sensitivity first: the highest threshold at which at least `target` of the images with the finding are
    flagged. Specificity first: the lowest at which at least `target` of those without are not.

    Parameters
    ----------
    rule : {"sensitivity-first", "specificity-first"}
    sample : Sample
        Of n labelled images.
    bundle : str
        sha256 of the bundle that gave the logits.
    target : float
        Greater than 0, less than 1.
    margin : float
        There must be patients enough that a share of `target` would be known to be above ``target - margin``.
    date : datetime.date, optional
        Today, UTC, by default.
    folds, draws, seed, confidence
        Of the cross-validation and the intervals.

    Raises
    ------
    BuildError
        ``calibration.too-few`` with the number of patients that would be enough; ``calibration.unfit``.
    ValueError
        If target or margin is no share.
    """
    if not 0 < target < 1 or not 0 < margin < target:
        raise ValueError("target is between 0 and 1, margin between 0 and target")
    require_enough_to_choose(rule, sample, target=target, margin=margin, confidence=confidence)
    require_order(sample)
    drawn = np.concatenate(
        [
            _cuts(rule, sample, target, block)
            for block in patient_draws(sample.patients, draws=draws, seed=seed)
        ]
    )
    low, high, _ = percentile_interval(drawn, confidence)
    flagged = np.empty(len(sample.truth), bool)
    for chosen, measured in patient_folds(sample, folds=folds, seed=seed):
        flagged[measured] = sample.logits[measured] >= threshold(rule, sample.take(chosen), target)
    chosen_here = threshold(rule, sample, target)
    return OperatingPoint(
        finding=sample.finding,
        bundle=bundle,
        rule=rule,
        target=target,
        threshold=chosen_here,
        low=chosen_here if low is None else low,
        high=chosen_here if high is None else high,
        sensitivity=_share(flagged, sample.truth, sample.positive_patients, confidence),
        specificity=_share(~flagged, ~sample.truth, sample.negative_patients, confidence),
        confidence=confidence,
        folds=folds,
        draws=draws,
        seed=seed,
        date=(date or datetime.datetime.now(datetime.timezone.utc).date()).isoformat(),
    )


def require_enough_to_choose(
    rule: Rule,
    sample: Sample,
    *,
    target: float = 0.95,
    margin: float = MARGIN,
    confidence: float = CONFIDENCE,
) -> None:
    """Refuse a sample with too few patients for a threshold; its logits are not looked at.

    Raises
    ------
    BuildError
        ``calibration.too-few`` with the number of patients that would be enough.
    """
    least = decisions_to_settle(1 - target, 1 - target + margin, confidence)
    assert least is not None  # noqa: S101 - a margin above 0 is always settled
    first = max(least, LEAST_PATIENTS), LEAST_PATIENTS
    require(sample, *(first if rule == "sensitivity-first" else first[::-1]), f"a {rule} threshold")


def threshold(rule: Rule, sample: Sample, target: float) -> float:
    """Return the threshold on these very images, midway between two logits, so that none lies on it."""
    return float(_cuts(rule, sample, target, once(len(sample.truth)))[0])


def _cuts(rule: Rule, sample: Sample, target: float, weights: NDArray[np.floating]) -> Floats:
    """Return the threshold of each draw (d,); NaN where it holds no image of the kind that must be kept."""
    if rule == "sensitivity-first":
        return _highest_keeping(sample.logits, sample.truth, target, weights)
    return -_highest_keeping(-sample.logits, ~sample.truth, target, weights)


def _highest_keeping(
    logits: Floats, kept: NDArray[np.bool_], target: float, weights: NDArray[np.floating]
) -> Floats:
    """Return the highest threshold of each draw that at least `target` of the images to be kept reach."""
    ranking = Ranking(logits)
    reached = np.cumsum(ranking.totals(weights * kept[:, None])[::-1], axis=0)
    total = reached[-1]
    # Weights are whole numbers: a small slack lets 19 of 20 be 0.95 however it is rounded.
    enough = reached >= target * total - 1e-9
    place = len(ranking.levels) - 1 - enough.argmax(0)
    levels = ranking.levels
    # Where even the lowest logit is needed nothing lies below: go a thousandth of the range further.
    below = np.append(levels[0] - ((levels[-1] - levels[0]) or 1.0) / 1000, levels[:-1])
    return np.where(total > 0, (levels[place] + below[place]) / 2, np.nan)


def _share(right: NDArray[np.bool_], kind: NDArray[np.bool_], patients: int, confidence: float) -> Share:
    value, low, high = rate_interval(int(right[kind].sum()), int(kind.sum()), patients, confidence)
    return Share(value=value, low=low, high=high, images=int(kind.sum()), patients=patients)
