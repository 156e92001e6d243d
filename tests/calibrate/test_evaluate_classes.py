"""Alternatives as one prediction: accuracy and quadratic-weighted kappa against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score, confusion_matrix

from promptray.calibrate.evaluate import Settings, evaluate
from promptray.calibrate.evaluation_report import ClassesReport
from promptray.calibrate.tables.labels import UNCERTAIN, UNKNOWN
from tests.calibrate.labelled import make

SCALE = ("A", "B", "C", "D")


def graded(seed: int = 0, images: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Return the true step of each image and scores of all steps, right most of the time."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(4, size=images)
    return truth, -np.abs(truth[:, None] + rng.normal(size=(images, 1)) - np.arange(4)[None])


def classes(truth: np.ndarray, scores: np.ndarray, spoil=None, **settings: bool) -> ClassesReport | None:
    labels, _ = make(images=len(truth), keys=SCALE)
    labels.values[:] = np.eye(4, dtype=np.int8)[truth]
    if spoil:
        spoil(labels.values)
    return evaluate(labels, SCALE, scores, settings=Settings(draws=100, **settings))[0].classes


def test_a_scale_has_accuracy_kappa_and_confusion() -> None:
    truth, scores = graded()
    predicted = scores.argmax(1)
    found = classes(truth, scores, ordinal=True)
    assert (found.keys, found.images, found.unusable, found.ordinal) == (list(SCALE), 80, 0, True)
    assert found.accuracy.value == pytest.approx(accuracy_score(truth, predicted))
    library = cohen_kappa_score(truth, predicted, weights="quadratic")
    assert found.quadratic_kappa.value == pytest.approx(library)
    assert found.quadratic_kappa.low < library < found.quadratic_kappa.high
    assert found.confusion == confusion_matrix(truth, predicted).tolist()


def test_alternatives_without_order_have_no_kappa() -> None:
    found = classes(*graded(), alternatives=True)
    assert found.quadratic_kappa is None
    assert found.accuracy.value > 0.25


def test_independent_findings_are_no_classes() -> None:
    assert classes(*graded()) is None


def test_images_whose_labels_name_not_exactly_one_are_counted_as_unusable() -> None:
    def spoil(values: np.ndarray) -> None:
        values[0] = 0
        values[1] = 1
        values[2, values[2] == 0] = UNKNOWN
        values[3, np.argmin(values[3])] = UNCERTAIN

    found = classes(*graded(), spoil=spoil, ordinal=True)
    assert (found.images, found.unusable) == (76, 4)


def test_no_usable_image_no_classes() -> None:
    assert classes(*graded(), spoil=lambda values: values.fill(0), ordinal=True) is None
