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


def test_isotonic_takes_equal_logits_together_and_holds_its_ends() -> None:
    """Logits of a coarse scale, each level has one probability, beyond them that of its ends."""
    levels, shares = np.arange(5.0), np.array([0.0, 0.1, 0.35, 0.6, 0.9])
    logits = np.repeat(levels, 100)
    truth = (np.arange(500) % 100) < np.repeat(shares * 100, 100).round()
    order = np.random.default_rng(0).permutation(500)
    curve = fit("isotonic", sample("edema", logits[order], truth[order]))
    assert curve.apply(levels) == pytest.approx(np.maximum(shares, 1 / 502))
    assert curve.apply(np.array([-1e30, -1.0, 5.0, 1e30])) == pytest.approx([1 / 502, 1 / 502, 0.9, 0.9])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", ["plain", "ties", "separated", "float32", "far apart"])
def test_a_curve_gives_rising_probabilities_for_every_logit(method: Method, shape: str) -> None:
    found = make(600)
    logits, truth = found.logits, found.truth
    if shape == "ties":
        logits = np.round(logits * 2) / 2
    if shape == "separated":
        truth = logits > 0.3
    if shape == "float32":
        logits = logits.astype(np.float32).astype(np.float64)
    if shape == "far apart":
        logits = logits * 1e6
    curve = fit(method, sample("edema", logits, truth))
    grid = np.unique(np.concatenate([logits, np.linspace(-1e4, 1e4, 4001), [-1e300, 1e300]]))
    probabilities = curve.apply(grid)
    assert np.isfinite(probabilities).all()
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1
    assert (np.diff(probabilities) >= -1e-15).all()


def test_a_temperature_for_logits_far_from_0_is_refused_and_platt_named() -> None:
    """They rank well: it is not the labels that are wrong."""
    found = make(600)
    moved = sample("edema", found.logits + 40.0, found.truth)
    with pytest.raises(BuildError, match="logit 0") as caught:
        fit("temperature", moved)
    assert caught.value.code == "calibration.unfit"
    assert "--method platt" in str(caught.value.cure)
    assert fit("platt", moved).apply(moved.logits) == pytest.approx(
        fit("platt", found).apply(found.logits), abs=1e-6
    )


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_images_does_not_matter(method: Method) -> None:
    found = make(600)
    order = np.random.default_rng(3).permutation(600)
    again = fit(method, found.take(order))
    assert again.apply(found.logits) == pytest.approx(fit(method, found).apply(found.logits), abs=1e-9)
    assert fit(method, found) == fit(method, found)


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
