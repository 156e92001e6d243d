"""Calibration of a finding: measured on held-out patients, refused where there are too few."""

from __future__ import annotations

import datetime
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from promptray.calibrate.probability.calibrate import CalibrationReport, calibrate, held_out_probabilities
from promptray.calibrate.probability.calibration_error import (
    brier_score,
    calibration_error,
    equal_bins,
    error_by_chance,
)
from promptray.calibrate.probability.fit import WAYS, Method, fit
from promptray.calibrate.probability.folds import patient_folds
from promptray.calibrate.probability.reliability import reliability_diagram
from promptray.calibrate.probability.sample import Sample, sample
from promptray.runtime.errors import BuildError
from tests.calibrate.probability.made import BUNDLE, make, true

METHODS: list[Method] = list(WAYS)
DAY = datetime.date(2024, 5, 6)


def quick(method: Method, found: Sample, **settings: float) -> CalibrationReport:
    return calibrate(method, found, bundle=BUNDLE, date=DAY, draws=200, **settings)


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_a_calibrated_finding_is_as_good_as_chance_allows(method: Method) -> None:
    found = make(3000)
    report = quick(method, found)
    assert report.brier.low < report.brier.value < report.brier.high
    assert report.brier.value < report.brier_of_prevalence
    best = brier_score(true(found.logits), found.truth)[0]
    assert report.brier.value == pytest.approx(best, abs=0.005)
    error = report.calibration_error
    assert error.low <= error.value <= error.high
    assert error.value < 3 * report.error_by_chance
    assert report.bias.low < 0 < report.bias.high
    assert report.prevalence == found.truth.mean()
    assert sum(each.images for each in report.bins) == 3000
    inside = [each.low <= each.probability <= each.high for each in report.bins]
    assert sum(inside) >= 8  # of ten intervals of 95 %


def test_a_temperature_cannot_mend_a_shift_and_the_report_shows_it() -> None:
    report = quick("temperature", make(3000, intercept=-2.0))
    assert report.calibration_error.low > 3 * report.error_by_chance
    assert report.bias.low > 0.05


def test_what_is_stored_is_fitted_on_all_images() -> None:
    found = make(500)
    stored = quick("platt", found).calibration
    assert (stored.finding, stored.bundle, stored.date) == ("edema", BUNDLE, "2024-05-06")
    assert (stored.images, stored.positives, stored.patients) == (500, int(found.truth.sum()), 500)
    assert stored.curve == fit("platt", found)
    assert msgspec.json.decode(msgspec.json.encode(quick("platt", found)), type=CalibrationReport)


def test_no_patient_is_both_fitted_on_and_measured() -> None:
    found = make(600, per_patient=3)
    rows = []
    for fitted, measured in patient_folds(found):
        assert not set(found.patients[fitted]) & set(found.patients[measured])
        assert 0 < found.truth[measured].mean() < 1
        rows += measured.tolist()
    assert sorted(rows) == list(range(600))


def test_held_out_probabilities_do_not_know_their_labels() -> None:
    """The labels are almost coins; a table that saw other images of a patient knows how his fell."""
    found = make(1200, slope=0.3, intercept=0.0, per_patient=3)
    best = brier_score(true(found.logits, 0.3, 0.0), found.truth)[0]
    by_image = sample("edema", found.logits, found.truth)
    honest, naive = (
        brier_score(held_out_probabilities("isotonic", each), each.truth)[0] for each in (found, by_image)
    )
    assert naive < best - 0.003 < best < honest


def test_images_of_one_patient_widen_the_intervals() -> None:
    found = make(1500, per_patient=5)
    alone = sample("edema", found.logits, found.truth)
    honest, naive = quick("platt", found), quick("platt", alone)
    for name in ("brier", "bias"):
        own, other = getattr(honest, name), getattr(naive, name)
        assert own.high - own.low > 1.5 * (other.high - other.low)
    assert honest.bins[0].high - honest.bins[0].low > naive.bins[0].high - naive.bins[0].low


@pytest.mark.parametrize("method", METHODS)
def test_too_few_patients_are_refused_with_the_number_that_would_do(method: Method) -> None:
    least = WAYS[method].least
    logits = np.linspace(-1, 1, 4 * least)
    labels = np.arange(4 * least) < least - 1
    with pytest.raises(BuildError) as caught:
        quick(method, sample("edema", logits, labels))
    assert caught.value.code == "calibration.too-few"
    assert caught.value.expected == f"{least} patients with the finding and {least} without"
    assert caught.value.found == f"{least - 1} and {3 * least + 1}"
    assert str(int(np.ceil(4 * least * least / (least - 1)))) in caught.value.cure


def test_images_do_not_make_up_for_patients() -> None:
    found = make(1000, per_patient=25)
    with pytest.raises(BuildError, match="too-few"):
        quick("platt", found)


def test_none_of_a_kind_is_refused() -> None:
    with pytest.raises(BuildError, match="patients of both kinds"):
        quick("platt", sample("edema", np.arange(100.0), np.zeros(100)))


def test_unknown_labels_are_left_out_and_nan_scores_refused() -> None:
    labels = np.array([0, 1, np.nan, 1])
    assert sample("edema", np.arange(4.0), labels).logits.tolist() == [0, 1, 3]
    with pytest.raises(BuildError, match="1 of 4 images") as caught:
        sample("edema", [0, 1, np.nan, 3], labels)
    assert caught.value.code == "score.not-finite"
    with pytest.raises(ValueError, match="a label is 1, 0 or NaN"):
        sample("edema", [0.0, 1.0], [0, 2])
    with pytest.raises(ValueError, match="logits, labels, patients"):
        sample("edema", [0.0, 1.0], [0, 1, 1])


def test_the_measures_are_their_definitions() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random(200)
    truth = rng.random(200) < 0.3
    assert brier_score(probabilities, truth)[0] == pytest.approx(brier_score_loss(truth, probabilities))
    bins = equal_bins(probabilities)
    assert np.bincount(bins).tolist() == [20] * 10
    by_hand = np.mean([abs(probabilities[bins == n].mean() - truth[bins == n].mean()) for n in range(10)])
    assert calibration_error(probabilities, truth, bins)[0] == pytest.approx(by_hand)
    twice = np.full((200, 1), 2.0, np.float32)
    assert calibration_error(probabilities, truth, bins, twice)[0] == pytest.approx(by_hand)
    perfect = [
        calibration_error(probabilities, np.random.default_rng(n).random(200) < probabilities, bins)[0]
        for n in range(300, 400)
    ]
    assert error_by_chance(probabilities, bins) == pytest.approx(np.mean(perfect), rel=0.1)


def test_equal_probabilities_share_a_bin() -> None:
    assert equal_bins(np.full(100, 0.3)).tolist() == [0] * 100
    assert equal_bins(np.array([0.1, 0.2])).tolist() == [0, 0]
    assert set(equal_bins(np.repeat([0.1, 0.9], 100))) == {0, 1}


def test_the_interval_of_the_brier_score_covers_the_truth() -> None:
    """95 % intervals of forty samples; fewer than 34 by chance once in a thousand times."""
    reference = brier_score(true(make(200_000, seed=999).logits), make(200_000, seed=999).truth)[0]
    covered = 0
    for seed in range(40):
        brier = quick("platt", make(400, seed=seed)).brier
        covered += brier.low <= reference <= brier.high
    assert covered >= 34


def test_the_diagram_is_svg_with_a_point_for_each_bin() -> None:
    report = quick("platt", make(600))
    root = ElementTree.fromstring(reliability_diagram(report, standalone=True))
    assert root.tag.endswith("svg")
    assert "edema, platt, 600 images" in [element.text for element in root.iter()]
    paths = [element.get("d") for element in root.iter() if element.tag.endswith("path")]
    assert max(path.count("h0") for path in paths) == len(report.bins)
