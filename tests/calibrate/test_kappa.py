"""Quadratic-weighted kappa against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from promptray.calibrate.kappa import confusion, quadratic_weighted_kappa
from promptray.calibrate.ranking import once


def kappa(truth: np.ndarray, predicted: np.ndarray, steps: int) -> float:
    return float(quadratic_weighted_kappa(confusion(truth, predicted, steps, once(len(truth))))[0])


@pytest.mark.parametrize("seed", range(5))
def test_it_equals_the_library(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(4, size=90)
    predicted = np.clip(truth + rng.integers(-1, 2, size=90), 0, 3)
    library = cohen_kappa_score(truth, predicted, weights="quadratic", labels=range(4))
    assert kappa(truth, predicted, 4) == pytest.approx(library)
    assert kappa(predicted, truth, 4) == pytest.approx(library)


def test_weights_count_images_several_times() -> None:
    rng = np.random.default_rng(1)
    truth, predicted, times = (rng.integers(3, size=30) for _ in range(3))
    counts = confusion(truth, predicted, 3, times[:, None].astype(np.float32))
    library = cohen_kappa_score(np.repeat(truth, times), np.repeat(predicted, times), weights="quadratic")
    assert quadratic_weighted_kappa(counts)[0] == pytest.approx(library)


def test_known_values() -> None:
    scale = np.arange(4)
    assert kappa(scale, scale, 4) == 1
    assert kappa(scale, scale[::-1], 4) == -1
    assert np.isnan(kappa(np.zeros(3, int), np.zeros(3, int), 4))
