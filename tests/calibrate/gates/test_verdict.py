"""An interval against a bound, and how much data would decide."""

from __future__ import annotations

import pytest
from scipy.stats import binom

from promptray.calibrate.gates.verdict import decisions_to_settle, overall, patients_to_settle, verdict_of
from promptray.calibrate.rate import rate_interval


@pytest.mark.parametrize(
    ("low", "high", "sense", "verdict"),
    [
        (0.1, 0.5, "at most", "passed"),
        (0.1, 0.5001, "at most", "inconclusive"),
        (0.5, 0.9, "at most", "inconclusive"),
        (0.5001, 0.9, "at most", "refused"),
        (0.5, 0.9, "at least", "passed"),
        (0.4999, 0.9, "at least", "inconclusive"),
        (0.1, 0.4999, "at least", "refused"),
    ],
)
def test_only_a_whole_interval_decides(low: float, high: float, sense: str, verdict: str) -> None:
    assert verdict_of(low, high, 0.5, sense) == verdict


def test_the_worst_verdict_is_the_verdict() -> None:
    assert overall(["passed", "passed"]) == "passed"
    assert overall(["passed", "inconclusive"]) == "inconclusive"
    assert overall(["inconclusive", "refused", "passed"]) == "refused"
    assert overall([]) == "inconclusive"  # nothing was shown


def test_299_decisions_without_a_flip_settle_one_percent() -> None:
    assert decisions_to_settle(0.0, 0.01) == 299
    assert rate_interval(0, 299, 299, 0.9)[2] <= 0.01 < rate_interval(0, 298, 298, 0.9)[2]


@pytest.mark.parametrize(("share", "bound"), [(0.002, 0.01), (0.05, 0.01), (0.3, 0.5)])
def test_so_many_decisions_settle_a_share_and_one_fewer_do_not(share: float, bound: float) -> None:
    needed = decisions_to_settle(share, bound)

    def verdict(count: int) -> str:
        _, low, high = rate_interval(round(share * 10**6), 10**6, count, 0.9)
        return verdict_of(low, high, bound)

    assert verdict(needed) == ("passed" if share < bound else "refused")
    assert verdict(needed - 1) == "inconclusive"


def test_what_is_on_its_bound_is_never_settled() -> None:
    assert decisions_to_settle(0.01, 0.01) is None
    assert patients_to_settle(0.01, 0.0, 0.02, 0.01, 100) is None
    assert patients_to_settle(0.01, 0.0, 0.02, 0.01 + 1e-9, 100) is None  # no site has so many


def test_half_the_interval_takes_four_times_the_patients() -> None:
    assert patients_to_settle(0.0, -0.02, 0.02, 0.01, 100) == 400
    assert patients_to_settle(0.03, 0.005, 0.2, 0.02, 100) == 625  # beyond: its lower end must rise


@pytest.mark.parametrize("decisions", [299, 500, 1000])
def test_a_model_as_bad_as_the_bound_seldom_passes(decisions: int) -> None:
    """Exactly: the chance of so few flips that the interval is inside, at a true share on the bound."""
    passing = [
        flips
        for flips in range(40)
        if verdict_of(*rate_interval(flips, decisions, decisions, 0.9)[1:], 0.01) == "passed"
    ]
    assert passing == list(range(len(passing)))
    assert 0 < binom.cdf(len(passing) - 1, decisions, 0.01) <= 0.05
