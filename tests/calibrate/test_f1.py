"""F1 against scikit-learn, and the best threshold against all of them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from promptray.calibrate.f1 import best_f1, f1_of_flags
from promptray.calibrate.ranking import Ranking


@pytest.mark.parametrize("seed", range(5))
def test_best_f1_is_the_best_of_all_thresholds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random(80) < 0.3
    truth[0] = True
    scores = np.round(rng.normal(size=80) + truth, 1)
    found, threshold = best_f1(truth, Ranking(scores))
    assert found.value == pytest.approx(max(f1_score(truth, scores >= each) for each in scores))
    flags = scores >= threshold
    assert found.value == pytest.approx(f1_score(truth, flags))
    assert (found.precision, found.recall) == pytest.approx(
        (precision_score(truth, flags), recall_score(truth, flags))
    )
    assert f1_of_flags(truth, flags) == found


def test_nothing_flagged_is_zero() -> None:
    found = f1_of_flags(np.array([True, False]), np.array([False, False]))
    assert (found.value, found.precision, found.recall) == (0, 0, 0)


def test_without_positives_there_is_no_best_threshold() -> None:
    with pytest.raises(ValueError, match="positive"):
        best_f1(np.array([False, False]), Ranking([0.0, 1.0]))
