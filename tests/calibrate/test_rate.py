"""Clopper-Pearson intervals against SciPy's beta distribution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from promptray.calibrate.rate import independent_decisions, rate_interval


@pytest.mark.parametrize(
    ("events", "decisions"), [(0, 1), (0, 300), (1, 300), (3, 10), (10, 10), (150, 300), (5_000, 39_000)]
)
def test_ends_equal_the_library(events: int, decisions: int) -> None:
    value, low, high = rate_interval(events, decisions, decisions)
    assert value == events / decisions
    assert low == pytest.approx(
        0 if not events else beta.ppf(0.025, events, decisions - events + 1), abs=1e-12
    )
    rest = decisions - events
    assert high == pytest.approx(1 if not rest else beta.ppf(0.975, events + 1, rest), abs=1e-12)


def test_three_hundred_clean_decisions_prove_about_one_percent() -> None:
    assert 0.01 < rate_interval(0, 300, 300)[2] < 0.0125


def test_fewer_patients_widen_the_interval() -> None:
    many, few = rate_interval(2, 40, 40), rate_interval(2, 40, 10)
    assert few[0] == many[0]
    assert few[1] < many[1] < many[2] < few[2]
    assert few[2] == pytest.approx(beta.ppf(0.975, 1.5, 9.5))


@pytest.mark.parametrize("numbers", [(3, 2, 2), (-1, 2, 2), (0, 0, 0), (0, 2, 3)])
def test_impossible_counts_are_errors(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="a rate needs"):
        rate_interval(*numbers)


@pytest.mark.parametrize(
    ("images_of", "worth"), [([1] * 50, 50), ([3] * 50, 50), ([100] + [1] * 100, 3), ([7], 1)]
)
def test_what_images_of_patients_are_worth(images_of: list[int], worth: int) -> None:
    assert independent_decisions(np.repeat(np.arange(len(images_of)), images_of)) == worth
