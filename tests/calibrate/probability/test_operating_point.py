"""Thresholds keep what they promise on patients that they were not chosen on."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from scipy.stats import norm

from promptray.calibrate.probability.folds import patient_folds
from promptray.calibrate.probability.operating_point import OperatingPoint, Rule, operating_point, threshold
from promptray.calibrate.probability.sample import Sample, sample
from promptray.runtime.errors import BuildError
from tests.calibrate.probability.made import BUNDLE

RULES: list[Rule] = ["sensitivity-first", "specificity-first"]


def binormal(positives: int, negatives: int, *, seed: int = 0) -> Sample:
    """Logits of the sick around 2, of the healthy around 0, both of spread 1."""
    rng = np.random.default_rng(seed)
    labels = np.arange(positives + negatives) < positives
    return sample("edema", rng.normal(size=len(labels)) + 2.0 * labels, labels)


def quick(rule: Rule, found: Sample, **settings: float) -> OperatingPoint:
    return operating_point(rule, found, bundle=BUNDLE, date=datetime.date(2024, 5, 6), draws=200, **settings)


@pytest.mark.parametrize(("rule", "exact"), [(RULES[0], 2 - norm.ppf(0.9)), (RULES[1], norm.ppf(0.9))])
def test_the_threshold_is_the_quantile_of_the_kind_that_is_kept(rule: Rule, exact: float) -> None:
    point = quick(rule, binormal(2000, 2000), target=0.9)
    assert point.low < point.threshold < point.high
    assert point.low < exact < point.high
    kept, other = (
        (point.sensitivity, point.specificity) if rule == RULES[0] else (point.specificity, point.sensitivity)
    )
    assert kept.low < 0.9 < kept.high
    assert point.sensitivity.low < norm.cdf(2 - point.threshold) < point.sensitivity.high
    assert point.specificity.low < norm.cdf(point.threshold) < point.specificity.high
    assert other.value == pytest.approx(norm.cdf(2 - norm.ppf(0.9)), abs=0.03)
    assert kept.patients == 2000


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("target", [0.5, 0.8, 0.95])
def test_on_its_own_images_it_keeps_the_target_and_not_an_image_more(rule: Rule, target: float) -> None:
    found = binormal(101, 203)
    cut = threshold(rule, found, target)
    assert np.abs(found.logits - cut).min() > 0
    flagged = found.logits >= cut
    kept = flagged[found.truth] if rule == RULES[0] else ~flagged[~found.truth]
    assert kept.mean() >= target > (kept.sum() - 1) / len(kept)


def test_a_target_that_is_met_exactly_is_met() -> None:
    found = sample("edema", np.arange(40.0), np.arange(40) >= 20)
    assert threshold("sensitivity-first", found, 0.95) == 20.5  # 19 of 20
    assert threshold("specificity-first", found, 0.95) == 18.5
    perfect = sample("edema", np.arange(40.0), np.arange(40) < 20)
    cut = threshold("sensitivity-first", perfect, 0.999)
    assert cut < 0  # even the lowest logit is needed
    assert threshold("specificity-first", perfect, 0.999) > 39


def test_the_two_rules_mirror_each_other() -> None:
    found = binormal(300, 200)
    mirrored = sample("edema", -found.logits, ~found.truth)
    assert threshold(RULES[0], found, 0.9) == -threshold(RULES[1], mirrored, 0.9)


@pytest.mark.parametrize("rule", RULES)
def test_shares_are_of_patients_that_the_threshold_was_not_chosen_on(rule: Rule) -> None:
    found = binormal(60, 60, seed=3)
    point, right = quick(rule, found, folds=4, seed=5), []
    for chosen, measured in patient_folds(found, folds=4, seed=5):
        part = found.take(measured)
        right.append((part.logits >= threshold(rule, found.take(chosen), 0.95)) == part.truth)
        assert len(measured) == 30
    told = (point.sensitivity.value + point.specificity.value) / 2
    assert told == pytest.approx(np.concatenate(right).mean())
    assert told != ((found.logits >= point.threshold) == found.truth).mean()


@pytest.mark.parametrize("rule", RULES)
def test_too_few_are_refused_with_the_number_that_would_do(rule: Rule) -> None:
    few = binormal(20, 400) if rule == RULES[0] else binormal(400, 20)
    with pytest.raises(BuildError) as caught:
        quick(rule, few)
    assert caught.value.code == "calibration.too-few"
    needed = max(int(word) for word in caught.value.expected.split() if word.isdigit())
    enough = binormal(needed, 400) if rule == RULES[0] else binormal(400, needed)
    assert quick(rule, enough).rule == rule
    fewer = binormal(needed - 1, 400) if rule == RULES[0] else binormal(400, needed - 1)
    with pytest.raises(BuildError, match="too-few"):
        quick(rule, fewer)


@pytest.mark.parametrize("rule", RULES)
def test_scores_that_do_not_rank_get_no_threshold(rule: Rule) -> None:
    found = binormal(100, 100)
    with pytest.raises(BuildError, match=r"AUROC of 0\.0") as caught:
        quick(rule, sample("edema", -found.logits, found.truth))
    assert caught.value.code == "calibration.unfit"


def test_a_stricter_margin_asks_for_more() -> None:
    with pytest.raises(BuildError) as wide:
        quick(RULES[0], binormal(20, 400), margin=0.1)
    with pytest.raises(BuildError) as narrow:
        quick(RULES[0], binormal(20, 400), margin=0.03)
    first, second = (int(caught.value.expected.split()[0]) for caught in (wide, narrow))
    assert second > 4 * first


def test_images_of_one_patient_widen_the_intervals() -> None:
    found = binormal(200, 200)
    copies = sample(
        "edema", np.repeat(found.logits, 5), np.repeat(found.truth, 5), np.repeat(found.patients, 5)
    )
    one, five, naive = (
        quick(RULES[0], each) for each in (found, copies, sample("edema", copies.logits, copies.truth))
    )
    assert one.sensitivity.patients == five.sensitivity.patients == 200
    assert naive.sensitivity.patients == 1000
    assert five.sensitivity.high - five.sensitivity.low > naive.sensitivity.high - naive.sensitivity.low
    assert five.high - five.low > naive.high - naive.low


@pytest.mark.parametrize("wrong", [{"target": 1.0}, {"target": 0.0}, {"margin": 0.0}, {"margin": 0.96}])
def test_shares_that_are_none_are_an_error(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="between 0 and"):
        quick(RULES[0], binormal(100, 100), **wrong)
