"""Agreement of maps: by shape, and by where the eye is led."""

from __future__ import annotations

import numpy as np
import pytest

from promptray.calibrate.gates.map_agreement import map_correlation, top_overlap

MAPS = np.random.default_rng(0).random((5, 6, 7))
OTHERS = np.random.default_rng(1).random((5, 6, 7))


def test_the_correlation_is_numpys() -> None:
    expected = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(MAPS, OTHERS, strict=True)]
    assert map_correlation(MAPS, OTHERS) == pytest.approx(expected)


def test_height_and_offset_do_not_matter_and_the_sign_does() -> None:
    assert map_correlation(MAPS, 3 * MAPS + 1) == pytest.approx(np.ones(5))
    assert map_correlation(MAPS, -MAPS) == pytest.approx(-np.ones(5))


def test_a_flat_map_agrees_with_itself_only() -> None:
    flat = np.full((5, 6, 7), 0.1)
    assert (map_correlation(flat, flat) == 1).all()
    assert (map_correlation(flat, 2 * flat) == 0).all()
    assert (map_correlation(MAPS, flat) == 0).all()


def test_the_overlap_counts_shared_top_cells() -> None:
    one, other = np.zeros((1, 4, 5)), np.zeros((1, 4, 5))
    one[0, 0, :2] = other[0, 0, 1:3] = 1, 2
    assert top_overlap(one, other) == [0.5]
    assert (top_overlap(MAPS, MAPS) == 1).all()
    assert (top_overlap(MAPS, 2 * MAPS + 1) == 1).all()
    assert (top_overlap(MAPS, -MAPS) == 0).all()
    assert top_overlap(MAPS, OTHERS, top=1.0) == pytest.approx(np.ones(5))
