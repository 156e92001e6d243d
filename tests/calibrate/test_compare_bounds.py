"""A bound holds only where the whole interval is inside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from promptray.calibrate.compare import SETTINGS, compare
from promptray.calibrate.compare_bounds import Bounds
from promptray.calibrate.comparison_report import ComparisonReport
from promptray.calibrate.gates import GateData, Limits, ModelScores, run_gates
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
        settings=replace(SETTINGS, draws=200),
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


def test_a_value_outside_whose_interval_is_not_is_inconclusive_too() -> None:
    found = judged(Bounds()).findings[0].spearman
    (bound,) = judged(Bounds(min_spearman=(found.value + found.high) / 2)).bounds
    assert (bound.status, bound.value < bound.bound) == ("inconclusive", True)


def test_299_decisions_without_a_flip_settle_one_in_a_hundred() -> None:
    few, enough = (judged(Bounds(max_flips=0.01), noise=0, images=n) for n in (298, 299))
    assert (few.bounds[0].status, enough.bounds[0].status) == ("inconclusive", "passed")


def test_a_bootstrap_of_few_patients_passes_nothing() -> None:
    few, enough = (judged(Bounds(min_spearman=0.5), noise=0, images=n) for n in (29, 30))
    assert (few.bounds[0].value, few.bounds[0].status) == (pytest.approx(1), "inconclusive")
    assert enough.bounds[0].status == "passed"


def test_a_largest_difference_is_a_fact_of_few_images_too() -> None:
    assert judged(Bounds(max_delta=0.0), noise=0, images=10).bounds[0].status == "passed"


@pytest.mark.parametrize("scale", [0.002, 0.02, 0.2])
@pytest.mark.parametrize("images", [20, 200, 400])
def test_the_gates_judge_alike(scale: float, images: int) -> None:
    """Both look at the same scores; what the gates call refused is failed here."""
    labels, scores = make(images=images, per_patient=1)
    other = scores + np.random.default_rng(1).normal(scale=scale, size=scores.shape)
    bounds = Bounds(min_spearman=0.999, max_flips=0.01, max_auroc_loss=0.005, max_class_auroc_loss=0.005)
    report = compare(
        table(labels, scores), table(labels, other), labels=labels, bounds=bounds,
        settings=replace(SETTINGS, draws=200),
    )  # fmt: skip
    limits = Limits(spearman=0.999, finding_flips=0.01, auroc_loss=0.005, class_auroc_loss=0.005)
    gates = run_gates(
        GateData(
            labels.keys, ModelScores("A", scores), ModelScores("B", other),
            labels=labels.values.astype(float), patients=labels.patients,
        ),
        limits, draws=200,
    )  # fmt: skip
    ours = {bound.name: bound for bound in report.bounds}
    theirs = {gate.name: gate for gate in gates.gates}
    for bound, gate in (
        ("min_spearman", "spearman"), ("max_flips", "finding_flips"),
        ("max_auroc_loss", "auroc_loss"), ("max_class_auroc_loss", "class_auroc_loss"),
    ):  # fmt: skip
        assert ours[bound].status == theirs[gate].verdict.replace("refused", "failed"), bound
        if ours[bound].value is not None:
            pair = [(each.value, each.low, each.high) for each in (ours[bound], theirs[gate])]
            assert pair[0] == pytest.approx(pair[1])


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
        table(made, scores), table(made, better), labels=made, settings=replace(SETTINGS, draws=100),
        bounds=Bounds(max_auroc_loss=0.0),
    )  # fmt: skip
    assert report.bounds[0].value < 0
    assert report.passed
