"""Draws of whole patients."""

from __future__ import annotations

import numpy as np
import pytest

from promptray.calibrate.bootstrap import mean_draws, patient_draws, percentile_interval


def test_images_of_a_patient_are_drawn_together_and_as_many_patients_as_there_are() -> None:
    patients = np.array(["a", "b", "a", "c", "b"])
    (weights,) = patient_draws(patients, draws=50, seed=0)
    assert weights.shape == (5, 50)
    np.testing.assert_array_equal(weights[0], weights[2])
    np.testing.assert_array_equal(weights[1], weights[4])
    assert (weights[[0, 1, 3]].sum(0) == 3).all()
    assert len(np.unique(weights, axis=1).T) > 5


def test_blocks_add_up_and_the_seed_decides() -> None:
    patients = np.arange(30)
    blocks = list(patient_draws(patients, draws=600, seed=4))
    assert sum(block.shape[1] for block in blocks) == 600
    assert len(blocks) > 1
    again = np.hstack(list(patient_draws(patients, draws=600, seed=4)))
    np.testing.assert_array_equal(np.hstack(blocks), again)
    assert not np.array_equal(again, np.hstack(list(patient_draws(patients, draws=600, seed=5))))


def test_no_images_no_draws() -> None:
    assert list(patient_draws([], draws=10, seed=0)) == []


def test_draws_that_do_not_define_the_statistic_are_left_out() -> None:
    low, high, count = percentile_interval(np.array([0.0, np.nan, 1.0]))
    assert (low, high, count) == (pytest.approx(0.025), pytest.approx(0.975), 2)
    assert percentile_interval(np.array([np.nan])) == (None, None, 0)


def test_a_draw_leaves_out_the_findings_it_does_not_define() -> None:
    mean = mean_draws(
        [[np.array([1.0, np.nan]), np.array([np.nan])], [np.array([0.0, 0.5]), np.array([np.nan])]]
    )
    np.testing.assert_array_equal(mean, [0.5, 0.5, np.nan])
