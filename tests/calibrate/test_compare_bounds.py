"""A bound holds only where the whole interval is inside it."""

from __future__ import annotations

import numpy as np
import pytest

from promptray.calibrate.compare import compare
from promptray.calibrate.compare_bounds import Bounds
from promptray.calibrate.comparison_report import ComparisonReport
from promptray.calibrate.evaluate import Settings
from promptray.calibrate.tables.labels import Labels
from tests.calibrate.labelled import make, table


def judged(
    bounds: Bounds, noise: float = 0.2, images: int = 200, labels: Labels | None = None
) -> ComparisonReport:
    made, scores = make(images=images, per_patient=1)
    other = scores + np.random.default_rng(1).normal(scale=noise, size=scores.shape) * [1, 0.1]
    return compare(
        table(made, scores),
        table(made, other),
        labels=labels or made,
        settings=Settings(draws=200),
        bounds=bounds,
    )


@pytest.mark.parametrize(
    ("bounds", "status"),
    [
        (Bounds(max_delta=100), "passed"),
        (Bounds(max_delta=1e-3), "failed"),
        (Bounds(min_spearman=0.5), "passed"),
        (Bounds(min_spearman=0.9999), "failed"),
        (Bounds(max_flips=0.5), "passed"),
        (Bounds(max_flips=0.0), "failed"),
        (Bounds(max_auroc_loss=0.2), "passed"),
        (Bounds(max_class_auroc_loss=0.2), "passed"),
    ],
)
def test_clear_cases(bounds: Bounds, status: str) -> None:
    report = judged(bounds)
    (bound,) = report.bounds
    assert bound.status == status
    assert report.passed is (status == "passed")


def test_no_bound_is_passed() -> None:
    report = judged(Bounds())
    assert report.bounds == []
    assert report.passed


def test_the_worst_finding_is_named_with_its_numbers() -> None:
    report = judged(Bounds(min_spearman=0.5, max_delta=100))
    assert [bound.finding for bound in report.bounds] == ["edema", "edema"]
    delta, rank = report.bounds
    assert delta.value == report.findings[0].max_delta
    found = report.findings[0].spearman
    assert (rank.value, rank.low, rank.high) == (found.value, found.low, found.high)


def test_a_value_inside_whose_interval_is_not_is_inconclusive() -> None:
    found = judged(Bounds()).findings[0].spearman
    (bound,) = judged(Bounds(min_spearman=(found.value + found.low) / 2)).bounds
    assert bound.status == "inconclusive"


def test_no_flip_among_few_images_is_no_proof() -> None:
    few, many = (judged(Bounds(max_flips=0.02), noise=0, images=n) for n in (40, 400))
    assert (few.bounds[0].value, few.bounds[0].status, few.passed) == (0, "inconclusive", False)
    assert (many.bounds[0].value, many.bounds[0].status, many.passed) == (0, "passed", True)


def test_what_cannot_be_measured_is_not_passed() -> None:
    labels, _ = make(images=200, per_patient=1)
    labels.values[:] = 0
    report = judged(Bounds(max_auroc_loss=1, max_class_auroc_loss=1), labels=labels)
    assert [(bound.status, bound.value) for bound in report.bounds] == [("inconclusive", None)] * 2


def test_a_gain_of_auroc_is_no_loss() -> None:
    made, scores = make(images=400, per_patient=1)
    better = scores + 3 * made.values
    report = compare(
        table(made, scores), table(made, better), labels=made, settings=Settings(draws=100),
        bounds=Bounds(max_auroc_loss=0.0),
    )  # fmt: skip
    assert report.bounds[0].value < 0
    assert report.passed
