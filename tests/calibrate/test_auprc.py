"""Precision-recall areas against scikit-learn, and what must not matter to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc, average_precision_score, precision_recall_curve

from promptray.calibrate.auprc import average_precision, trapezoid_area
from promptray.calibrate.auroc import auroc
from promptray.calibrate.ranking import Ranking

cases = st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=40).filter(
    lambda pairs: len({truth for truth, _ in pairs}) == 2
)


def arrays(pairs: list[tuple[bool, int]]) -> tuple[np.ndarray, np.ndarray]:
    truth, scores = zip(*pairs, strict=True)
    return np.array(truth), np.array(scores, float)


@pytest.mark.parametrize("seed", range(5))
def test_both_areas_equal_the_library_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random(120) < 0.2
    scores = np.round(rng.normal(size=120) + truth, 1)
    assert average_precision(truth, Ranking(scores))[0] == pytest.approx(
        average_precision_score(truth, scores)
    )
    precision, recall, _ = precision_recall_curve(truth, scores)
    assert trapezoid_area(truth, Ranking(scores))[0] == pytest.approx(auc(recall, precision))


def test_weighted_average_precision_equals_the_library() -> None:
    rng = np.random.default_rng(7)
    truth, scores = rng.random(60) < 0.3, rng.integers(8, size=60).astype(float)
    weights = rng.integers(4, size=(60, 6)).astype(np.float32)
    library = [average_precision_score(truth, scores, sample_weight=column) for column in weights.T]
    np.testing.assert_allclose(average_precision(truth, Ranking(scores), weights), library, atol=1e-12)


@pytest.mark.parametrize("metric", [auroc, average_precision, trapezoid_area])
def test_one_class_alone_has_no_area(metric) -> None:
    ranking = Ranking([0.1, 0.2])
    assert np.isnan(metric(np.array([True, True]), ranking)[0])
    assert np.isnan(metric(np.array([False, False]), ranking)[0])


@given(cases)
def test_a_rising_transform_changes_nothing(pairs: list[tuple[bool, int]]) -> None:
    truth, scores = arrays(pairs)
    for metric in (auroc, average_precision, trapezoid_area):
        assert metric(truth, Ranking(scores))[0] == metric(truth, Ranking(np.exp(scores) * 3 - 1))[0]


@given(cases)
def test_swapping_the_classes_mirrors_the_auroc(pairs: list[tuple[bool, int]]) -> None:
    truth, scores = arrays(pairs)
    area = auroc(truth, Ranking(scores))[0]
    assert auroc(~truth, Ranking(scores))[0] == pytest.approx(1 - area)
    assert auroc(truth, Ranking(-scores))[0] == pytest.approx(1 - area)


@given(cases)
def test_the_order_of_the_images_changes_nothing(pairs: list[tuple[bool, int]]) -> None:
    truth, scores = arrays(pairs)
    for metric in (auroc, average_precision):
        assert metric(truth, Ranking(scores))[0] == metric(truth[::-1], Ranking(scores[::-1]))[0]


@given(cases)
def test_a_weight_of_two_is_an_image_twice(pairs: list[tuple[bool, int]]) -> None:
    truth, scores = arrays(pairs)
    weights = (1 + np.arange(len(truth)) % 2).astype(np.float32)
    times = weights.astype(int)
    for metric in (auroc, average_precision, trapezoid_area):
        weighted = metric(truth, Ranking(scores), weights[:, None])[0]
        assert weighted == pytest.approx(
            metric(np.repeat(truth, times), Ranking(np.repeat(scores, times)))[0]
        )


def test_all_tied_is_chance() -> None:
    truth = np.array([True, False, False, False])
    assert auroc(truth, Ranking(np.zeros(4)))[0] == 0.5
    assert average_precision(truth, Ranking(np.zeros(4)))[0] == 0.25
