"""Fit the curve from logit to probability: Platt's, a temperature, or an isotonic table.

Platt's targets replace 1 and 0 by (p + 1) / (p + 2) and 1 / (q + 2) for p positives and q negatives
(Platt, 1999): without them perfectly ranked images would ask for an infinite slope.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from promptray.calibrate.probability.sample import Floats, Sample, require_order, unfit
from promptray.runtime.calibration import Curve, Isotonic, Method, Platt, Temperature
from promptray.runtime.errors import BuildError


class _Way(NamedTuple):
    curve: Callable[[Sample], Curve]
    least: int
    """Patients with the finding, and as many without."""


def fit(method: Method, sample: Sample) -> Curve:
    """Fit a curve to all images of a sample, each counting once.

    Raises
    ------
    BuildError
        ``calibration.unfit`` if higher logits do not mean more of the finding.
    """
    require_order(sample)
    return WAYS[method].curve(sample)


def _platt(sample: Sample) -> Platt:
    centre, spread = float(sample.logits.mean()), float(sample.logits.std())
    slope, intercept = _logistic((sample.logits - centre) / spread, sample.truth, intercept=True)
    slope /= spread
    if slope <= 0:
        raise unfit(sample, f"a slope of {slope:.3g}")
    return Platt(slope=slope, intercept=intercept - slope * centre)


def _temperature(sample: Sample) -> Temperature:
    size = float(np.sqrt((sample.logits**2).mean()))
    slope, _ = _logistic(sample.logits / size, sample.truth, intercept=False)
    if slope <= 0:
        raise BuildError(
            "calibration.unfit",
            "a temperature does not fit: it takes logit 0 for one half, and these logits are not so",
            artefact=sample.finding,
            expected="more positives above logit 0 than below",
            found=f"a slope of {slope / size:.3g}",
            cure="--method platt, which moves one half to where it is",
        )
    return Temperature(temperature=size / slope)


def _isotonic(sample: Sample) -> Isotonic:
    images = len(sample.truth)
    # No table of n images can tell a probability below 1 / n: stay off 0 and 1 (Laplace's rule).
    model = IsotonicRegression(y_min=1 / (images + 2), y_max=(images + 1) / (images + 2))
    model.fit(sample.logits, sample.truth.astype(np.float64))
    logits, probabilities = model.X_thresholds_, model.y_thresholds_
    if probabilities[-1] <= probabilities[0]:
        raise unfit(sample, "the same share of positives everywhere")
    return Isotonic(logits=logits.tolist(), probabilities=probabilities.tolist())


#: By method: how it is fitted, and the least patients with and without the finding. 50 and 50 leave the level
#: of the curve uncertain by 1.96 * sqrt(1/50 + 1/50) = 0.4 in log-odds, 0.1 in a probability near one half.
#: A table has many parameters: 200 and 200 (Van Calster et al., J Clin Epidemiol 2016, of flexible curves).
WAYS: dict[Method, _Way] = {
    "platt": _Way(_platt, 50),
    "temperature": _Way(_temperature, 50),
    "isotonic": _Way(_isotonic, 200),
}


def _logistic(values: Floats, truth: NDArray[np.bool_], *, intercept: bool) -> tuple[float, float]:
    """Return slope and intercept of the likeliest logistic curve for Platt's targets."""
    positives, negatives = int(truth.sum()), int((~truth).sum())
    targets = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    both = np.concatenate([values, values])[:, None]
    classes = np.repeat([1, 0], len(values))
    model = LogisticRegression(C=np.inf, fit_intercept=intercept, solver="newton-cholesky", tol=1e-8)
    model.fit(both, classes, sample_weight=np.concatenate([targets, 1 - targets]))
    return float(model.coef_[0, 0]), float(np.ravel(model.intercept_)[0])
