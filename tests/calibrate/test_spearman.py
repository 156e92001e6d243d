"""Spearman's correlation against SciPy, weighted as if images were repeated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from promptray.calibrate.ranking import Ranking
from promptray.calibrate.spearman import spearman

pairs = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=30).filter(
    lambda found: all(len({pair[side] for pair in found}) > 1 for side in (0, 1))
)


@given(pairs)
def test_it_equals_the_library_with_ties(found: list[tuple[int, int]]) -> None:
    one, other = np.array(found, float).T
    value = spearman(Ranking(one), Ranking(other))[0]
    assert value == pytest.approx(spearmanr(one, other)[0])
    assert spearman(Ranking(other), Ranking(one))[0] == pytest.approx(value)
    assert spearman(Ranking(np.exp(one)), Ranking(other))[0] == pytest.approx(value)
    assert spearman(Ranking(-one), Ranking(other))[0] == pytest.approx(-value)


def test_a_weight_is_a_number_of_copies() -> None:
    rng = np.random.default_rng(2)
    one, other = np.round(rng.normal(size=(2, 40)), 1)
    weights = rng.integers(4, size=(40, 5))
    library = [spearmanr(np.repeat(one, times), np.repeat(other, times))[0] for times in weights.T]
    ours = spearman(Ranking(one), Ranking(other), weights.astype(np.float32))
    np.testing.assert_allclose(ours, library, atol=1e-12)


def test_a_constant_side_has_no_correlation() -> None:
    assert np.isnan(spearman(Ranking(np.zeros(4)), Ranking(np.arange(4.0)))[0])
