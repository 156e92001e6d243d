"""The curves find the truth that made the labels, and refuse scores that do not rank them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from promptray.calibrate.probability.fit import WAYS, Method, fit
from promptray.calibrate.probability.sample import sample
from promptray.runtime.errors import BuildError
from tests.calibrate.probability.made import make, true

METHODS: list[Method] = list(WAYS)


def test_platt_is_the_likeliest_curve_for_its_targets() -> None:
    found = make(300)
    positives, negatives = found.truth.sum(), (~found.truth).sum()
    targets = np.where(found.truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(line: np.ndarray) -> float:
        values = line[0] * found.logits + line[1]
        return float((targets * np.logaddexp(0, -values) + (1 - targets) * np.logaddexp(0, values)).sum())

    best = minimize(loss, [1.0, 0.0]).x
    curve = fit("platt", found)
    assert (curve.slope, curve.intercept) == pytest.approx(best, abs=1e-3)


def test_platt_and_temperature_find_the_truth() -> None:
    curve = fit("platt", make(20_000))
    assert (curve.slope, curve.intercept) == pytest.approx((2.0, -1.0), abs=0.1)
    assert fit("temperature", make(20_000, slope=0.5, intercept=0.0)).temperature == pytest.approx(
        2.0, abs=0.2
    )


@pytest.mark.parametrize(("scale", "offset"), [(1e-4, 0.0), (1e4, 0.0), (1.0, 300.0)])
def test_platt_does_not_mind_the_scale_of_logits(scale: float, offset: float) -> None:
    """Families score on scales of their own: temperature 100, or thousandths apart."""
    found = make(500)
    moved = sample("edema", found.logits * scale + offset, found.truth)
    assert fit("platt", moved).apply(moved.logits) == pytest.approx(
        fit("platt", found).apply(found.logits), abs=1e-4
    )


def test_isotonic_finds_a_truth_that_is_no_logistic_curve() -> None:
    rng = np.random.default_rng(0)
    logits = rng.uniform(0, 1, 20_000)
    truth = np.where(logits < 0.5, 0.2, 0.7)  # a step
    found = sample("edema", logits, rng.random(len(logits)) < truth)
    error = {
        method: np.abs(fit(method, found).apply(logits) - truth).mean() for method in ("isotonic", "platt")
    }
    assert error["isotonic"] < 0.02 < error["platt"]


@pytest.mark.parametrize("method", METHODS)
def test_images_that_are_ranked_perfectly_stay_off_0_and_1(method: Method) -> None:
    logits = np.concatenate([np.linspace(-2, -1, 60), np.linspace(1, 2, 60)])
    curve = fit(method, sample("edema", logits, logits > 0))
    probabilities = curve.apply(logits)
    assert 0 < probabilities.min() < 0.1
    assert 0.9 < probabilities.max() < 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", ["reversed", "constant", "reversed above 0"])
def test_scores_that_do_not_rank_are_refused(method: Method, how: str) -> None:
    found = make(400)
    logits = np.zeros(400) if how == "constant" else -found.logits
    if how == "reversed above 0":  # where a temperature alone would see nothing wrong, most being present
        found, logits = make(400, intercept=1.0), 10 - make(400, intercept=1.0).logits
    with pytest.raises(BuildError, match="edema") as caught:
        fit(method, sample("edema", logits, found.truth))
    assert caught.value.code == "calibration.unfit"


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_more_images_come_closer_to_the_truth(method: Method) -> None:
    grid = np.linspace(-1.5, 1.5, 50)
    errors = [np.abs(fit(method, make(size)).apply(grid) - true(grid)).mean() for size in (200, 20_000)]
    assert errors[1] < errors[0]
    assert errors[1] < 0.02
