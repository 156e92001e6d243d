from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from promptray.calibrate.adapt.probe import DEFAULT_C, GRID, _folds, fit_probe


def problem(count: int = 90, classes: int = 3, *, signal: float = 2.0) -> tuple[NDArray, NDArray, NDArray]:
    rng = np.random.default_rng(0)
    truth = np.arange(count) % classes
    vectors = (rng.normal(size=(count, 8)) + np.linspace(-5, 5, 8)) * np.geomspace(0.01, 100, 8)
    vectors[:, 3] += signal * truth * vectors[:, 3].std()
    return vectors.astype(np.float32), truth, np.arange(count) // 2


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_three_classes_are_scikit_learns_decision_function(class_weights: str) -> None:
    vectors, truth, units = problem()
    keep = (truth != 0) | (np.arange(90) % 2 == 0)
    vectors, truth, units = vectors[keep], truth[keep], units[keep]
    probe = fit_probe(vectors, truth, units, 3, class_weights=class_weights, seed=1)
    weights = None if class_weights == "none" else "balanced"
    theirs = make_pipeline(
        StandardScaler(), LogisticRegression(C=probe.c, max_iter=10_000, tol=1e-6, class_weight=weights)
    ).fit(vectors.astype(np.float64), truth)
    ours = vectors @ probe.weight.T + probe.bias
    assert np.abs(ours - theirs.decision_function(vectors.astype(np.float64))).max() < 1e-4
    assert probe.converged
    assert probe.weight.dtype == probe.bias.dtype == np.float32


def test_two_classes_have_a_row_each_and_their_difference_is_the_decision_function() -> None:
    vectors, truth, units = problem(classes=2)
    probe = fit_probe(vectors, truth, units, 2)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=probe.c, max_iter=10_000, tol=1e-6)).fit(
        vectors.astype(np.float64), truth
    )
    ours = vectors @ probe.weight.T + probe.bias
    assert probe.weight.shape == (2, 8)
    decided = theirs.decision_function(vectors.astype(np.float64))
    assert np.abs((ours[:, 1] - ours[:, 0]) - decided).max() < 1e-4


def test_the_penalty_is_chosen_on_units_held_out() -> None:
    vectors, truth, units = problem(signal=0.0)
    probe = fit_probe(vectors, truth, units, 3)
    assert [c for c, _ in probe.losses] == list(GRID)
    assert probe.c == min(probe.losses, key=lambda pair: pair[1])[0]
    # Nothing can be learned: a strong penalty is best, and gives every class about a third.
    assert probe.c < 0.01
    assert min(loss for _, loss in probe.losses) == pytest.approx(np.log(3), abs=0.01)


def test_a_unit_is_never_fitted_and_held_out_at_once() -> None:
    _, truth, units = problem()
    folds = _folds(truth, units, 3, 0)
    assert len(folds) == 5
    for fit, out in folds:
        assert not set(units[fit]) & set(units[out])
        assert set(truth[fit]) == {0, 1, 2}
    assert sorted(np.concatenate([out for _, out in folds])) == list(range(90))


def test_a_class_of_one_unit_leaves_the_penalty_at_its_default() -> None:
    vectors, truth, _ = problem()
    probe = fit_probe(vectors, truth, truth, 3)  # each class is one patient
    assert (probe.c, probe.losses, probe.folds) == (DEFAULT_C, [], 0)


def test_a_number_that_never_moves_has_no_weight() -> None:
    vectors, truth, units = problem()
    vectors[:, 5] = 7.0
    vectors[:, 6] = 7.0 + 1e-6 * np.arange(90)
    probe = fit_probe(vectors, truth, units, 3)
    assert (probe.weight[:, 5] == 0).all()
    assert np.isfinite(probe.weight).all()
    assert np.abs(probe.weight[:, 6] * 1e-4).max() < 1  # not blown up by its tiny deviation
    logits = vectors @ probe.weight.T + probe.bias
    assert (logits.argmax(1) == truth).mean() > 0.8


def test_the_seed_is_all_that_is_drawn() -> None:
    vectors, truth, units = problem()
    first, second = (fit_probe(vectors, truth, units, 3, seed=4) for _ in range(2))
    assert (first.weight == second.weight).all()
    assert first.losses == second.losses
