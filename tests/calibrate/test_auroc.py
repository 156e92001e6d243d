"""AUROC and its patient-clustered bootstrap interval."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from promptray.calibrate.auroc import auroc, auroc_interval
from promptray.calibrate.ranking import Ranking


def noisy(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    return labels, labels + rng.normal(scale=1.2, size=n)


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], 0.75),
        ([0, 1], [1.0, 2.0], 1.0),
        ([1, 0], [1.0, 2.0], 0.0),
        ([0, 1, 0, 1], [3.0, 3.0, 3.0, 3.0], 0.5),
    ],
)
def test_known_values(labels: list[int], scores: list[float], expected: float) -> None:
    assert auroc_interval(labels, scores, np.arange(len(labels))).value == expected


def test_interval_holds_the_value_and_says_what_it_rests_on() -> None:
    labels, scores = noisy(120)
    result = auroc_interval(labels, scores, np.arange(120) // 2)
    assert result.low < result.value < result.high
    assert (result.images, result.positives, result.patients) == (120, 60, 60)
    assert str(result).endswith("120 images of 60 patients)")


def test_same_seed_same_interval() -> None:
    labels, scores = noisy(60)
    assert auroc_interval(labels, scores, np.arange(60)) == auroc_interval(labels, scores, np.arange(60))
    other = auroc_interval(labels, scores, np.arange(60), seed=1)
    assert other.low != auroc_interval(labels, scores, np.arange(60)).low


def test_copies_of_a_patient_do_not_narrow_the_interval() -> None:
    labels, scores = noisy(60)
    once = auroc_interval(labels, scores, np.arange(60))
    copied = [np.repeat(a, 8) for a in (labels, scores, np.arange(60))]
    clustered = auroc_interval(*copied)
    as_if_independent = auroc_interval(copied[0], copied[1], np.arange(480))
    assert clustered.high - clustered.low == pytest.approx(once.high - once.low, rel=0.1)
    assert as_if_independent.high - as_if_independent.low < 0.5 * (clustered.high - clustered.low)


def test_columns_are_averaged() -> None:
    labels, scores = noisy(80)
    both = auroc_interval(labels, np.column_stack([scores, -scores]), np.arange(80))
    assert both.value == pytest.approx(0.5)


def test_weighted_area_equals_the_library_with_ties() -> None:
    rng = np.random.default_rng(3)
    truth, scores = rng.integers(2, size=50).astype(bool), rng.integers(6, size=50).astype(float)
    weights = rng.integers(4, size=(50, 5)).astype(np.float32)
    library = [roc_auc_score(truth, scores, sample_weight=column) for column in weights.T]
    np.testing.assert_allclose(auroc(truth, Ranking(scores), weights), library, atol=1e-12)


def test_a_draw_without_both_classes_has_no_area() -> None:
    weights = np.array([[1, 0, 1], [1, 1, 0]], np.float32)
    assert np.isnan(auroc(np.array([True, False]), Ranking([0.0, 1.0]), weights)).tolist() == [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("labels", "scores", "patients", "message"),
    [
        ([1, 1], [0.1, 0.2], [0, 1], "no negative among 2 images"),
        ([0, 0], [0.1, 0.2], [0, 1], "no positive among 2 images"),
        ([0, 1], [0.1, np.nan], [0, 1], "finite"),
        ([0, 2], [0.1, 0.2], [0, 1], "0 or 1"),
        ([0, 1], [0.1, 0.2, 0.3], [0, 1], "one row per image"),
        ([0, 1], [0.1, 0.2], [0], "one row per image"),
    ],
)
def test_unusable_input_is_an_error(labels: list, scores: list, patients: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        auroc_interval(labels, scores, patients)


def test_draws_without_both_classes_are_not_counted() -> None:
    result = auroc_interval([0, 1, 1], [0.1, 0.2, 0.3], ["a", "b", "c"], draws=500)
    assert 0 < result.draws < 500
