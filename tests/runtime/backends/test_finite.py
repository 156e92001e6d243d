"""The check of every value: quick, and never wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptray.runtime.backends.finite import all_finite, require_finite, require_finite_pixels
from promptray.runtime.errors import ScoringError

LARGEST = np.finfo(np.float32).max
NO_NUMBERS = [np.nan, np.inf, -np.inf]


@given(
    st.integers(1, 5000),
    st.lists(st.tuples(st.integers(0, 4999), st.sampled_from(NO_NUMBERS)), min_size=1, max_size=4),
    st.sampled_from([0.0, 1e-40, 1.0, -LARGEST]),
    st.sampled_from(["float16", "float32", "float64"]),
)
def test_a_value_that_is_no_number_is_found_wherever_it_lies(
    size: int, places: list[tuple[int, float]], others: float, dtype: str
) -> None:
    values = np.full(size, np.clip(others, np.finfo(dtype).min, np.finfo(dtype).max), dtype)
    for place, value in places:
        values[place % size] = value
    assert not all_finite(values)


@given(st.integers(0, 5000), st.sampled_from(["float16", "float32", "float64"]), st.booleans())
def test_numbers_are_numbers_also_where_their_sum_is_none(size: int, dtype: str, signs: bool) -> None:
    values = np.full(size, np.finfo(dtype).max, dtype)
    values[::2] *= -1 if signs else 1
    assert all_finite(values)


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_an_array_that_is_not_contiguous_is_looked_at_whole(value: float) -> None:
    values = np.zeros((6, 4), np.float32)
    values[4, 1] = value
    assert not all_finite(values[:, :2])
    assert all_finite(values[:, 2:])
    assert not all_finite(np.asfortranarray(values))


def test_a_refusal_names_the_output() -> None:
    require_finite({"count": np.array([1, 2]), "logits": np.zeros(3, np.float32)}, "head")
    with pytest.raises(ScoringError, match=r"score\.not-finite") as refusal:
        require_finite({"logits": np.array([0, np.nan], np.float32)}, "head")
    assert refusal.value.artefact == "head graph, output logits"


def test_pixels_of_whole_numbers_are_left_to_who_checks_types() -> None:
    require_finite_pixels(np.array([1, 2]))
    with pytest.raises(ScoringError, match="network input"):
        require_finite_pixels(np.array([1, np.inf], np.float32))
