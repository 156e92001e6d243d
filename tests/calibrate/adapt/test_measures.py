from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    roc_auc_score,
)

from promptray.calibrate.adapt.measures import Measured, difference, measure

KEYS = ("A", "B", "C", "D")


def problem(seed: int = 0, *, signal: float = 1.0) -> tuple[NDArray, NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 4, 120)
    logits = rng.normal(size=(120, 4)) + signal * np.eye(4)[classes]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return classes, shares, np.arange(120) // 3


def of(classes: NDArray, shares: NDArray, units: NDArray, **changes: object) -> Measured:
    given = {"ordinal": True, "groups": {"dense": ["C", "D"]}, "draws": 60, "seed": 1}
    return measure(KEYS, classes, shares, units, **{**given, **changes})  # type: ignore[arg-type]


def test_values_are_scikit_learns() -> None:
    classes, shares, units = problem()
    predicted = shares.argmax(1)
    dense, said = classes >= 2, predicted >= 2
    expected = {
        "accuracy": accuracy_score(classes, predicted),
        "balanced accuracy": balanced_accuracy_score(classes, predicted),
        "macro F1": f1_score(classes, predicted, average="macro"),
        "macro AUROC": roc_auc_score(classes, shares, multi_class="ovr"),
        "quadratic kappa": cohen_kappa_score(classes, predicted, weights="quadratic"),
        "AUROC dense (group)": roc_auc_score(dense, shares[:, 2:].sum(1)),
        "accuracy dense (group)": accuracy_score(dense, said),
        "sensitivity dense (group)": (said & dense).sum() / dense.sum(),
        "specificity dense (group)": (~said & ~dense).sum() / (~dense).sum(),
    }
    for number, key in enumerate(KEYS):
        expected[f"AUROC {key}"] = roc_auc_score(classes == number, shares[:, number])
        expected[f"F1 {key}"] = f1_score(classes == number, predicted == number)
    found = of(classes, shares, units)
    assert found.numbers.keys() == expected.keys()
    for name, value in expected.items():
        assert found.numbers[name].value == pytest.approx(value), name
        assert len(found.numbers[name].draws) == 60
    assert found.confusion == confusion_matrix(classes, predicted).tolist()


def test_draws_are_of_units_and_alike_for_all_stages() -> None:
    classes, shares, units = problem()
    first, again = of(classes, shares, units), of(classes, shares, units)
    for name in first.numbers:
        same = difference(first, again, name)
        assert same is not None
        assert same.value == 0
        assert np.nansum(np.abs(same.draws)) == 0
    # A unit's images are drawn together: three copies of forty patients spread wider than 120 images.
    copies = np.repeat(np.arange(40), 3)
    thrice = of(classes[::3][copies], shares[::3][copies], copies)
    alone = of(classes[::3][copies], shares[::3][copies], np.arange(120))
    assert thrice.numbers["accuracy"].draws.std() > 1.4 * alone.numbers["accuracy"].draws.std()


def test_a_paired_difference_is_narrower_than_the_numbers() -> None:
    classes, shares, units = problem()
    better = shares + 0.05 * np.eye(4)[classes]
    gain = difference(of(classes, better, units), of(classes, shares, units), "accuracy")
    assert gain is not None
    assert gain.value > 0
    assert gain.draws.std() < of(classes, shares, units).numbers["accuracy"].draws.std()
    assert (
        difference(of(classes, shares, units, ordinal=False), of(classes, shares, units), "quadratic kappa")
        is None
    )


def test_a_class_that_a_draw_does_not_hold_is_left_out_of_it() -> None:
    classes = np.array([0, 0, 1, 1, 2, 2, 3])
    shares = np.eye(4)[classes] * 0.9 + 0.025
    found = of(classes, shares, np.arange(7), groups={})
    for name in ("macro F1", "balanced accuracy", "macro AUROC"):
        draws = found.numbers[name].draws
        assert (draws[~np.isnan(draws)] == 1).all(), name


def test_only_a_scale_has_a_weighted_kappa() -> None:
    classes, shares, units = problem()
    assert "quadratic kappa" not in of(classes, shares, units, ordinal=False).numbers


def test_a_class_of_few_units_has_a_value_and_no_draws() -> None:
    classes, shares, _ = problem()
    units = np.where(classes == 3, np.arange(120) % 4, 10 + np.arange(120) % 30)
    found = of(classes, shares, units, groups={"dense": ["C", "D"], "worst": ["D"]})
    assert found.few == {"D": 4, "worst (group)": 4}
    for name in ("AUROC D", "F1 D", "sensitivity worst (group)", "AUROC worst (group)"):
        assert len(found.numbers[name].draws) == 0, name
        assert 0 <= found.numbers[name].value <= 1
    assert len(found.numbers["AUROC C"].draws) == len(found.numbers["macro F1"].draws) == 60
    assert of(classes, shares, np.arange(120)).few == {}
