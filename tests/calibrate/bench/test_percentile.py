"""LoadGen's early-stopping rule against published runs, closed forms and SciPy."""

from __future__ import annotations

import random

import pytest
from scipy import stats

from promptray.calibrate.bench.percentile import (
    at_most,
    early_stopping,
    fewest_queries,
    median_interval,
    passes,
    plain,
    slower_allowed,
)

# Queries of runs of LoadGen (SingleStream, 90th percentile) and the highest latencies that its summary said
# it would discard; as published in logs and READMEs of MLPerf submissions.
PUBLISHED = [(100, 2), (201, 9), (659, 47), (708, 51), (79944, 7796)]


@pytest.mark.parametrize(("percentile", "queries"), [(90, 64), (99, 662)])
def test_the_fewest_queries_are_those_that_loadgen_publishes(percentile: float, queries: int) -> None:
    assert fewest_queries(percentile) == queries


@pytest.mark.parametrize(("queries", "discarded"), PUBLISHED)
def test_as_many_queries_are_discarded_as_loadgen_published(queries: int, discarded: int) -> None:
    assert slower_allowed(queries, 90) - 1 == discarded
    ordered = list(range(queries))
    assert early_stopping(ordered, 90) == queries - 1 - discarded


@pytest.mark.parametrize("percentile", [50, 90, 95, 97, 99, 99.9])
def test_the_fewest_queries_by_the_closed_form_of_one_slower_query(percentile: float) -> None:
    within = percentile / 100

    def chance(queries: int) -> float:
        return float(within**queries + queries * (1 - within) * within ** (queries - 1))

    queries = fewest_queries(percentile)
    assert chance(queries) < 0.01 <= chance(queries - 1)


@pytest.mark.parametrize("trials", [1, 7, 64, 1000, 20_000])
@pytest.mark.parametrize("chance", [0.001, 0.1, 0.5, 0.93])
def test_the_binomial_sum_is_scipys(trials: int, chance: float) -> None:
    for events in {0, 1, trials // 10, trials // 2, trials - 1, trials, trials + 3}:
        assert at_most(events, trials, chance) == pytest.approx(
            stats.binom.cdf(events, trials, chance), rel=1e-9, abs=1e-12
        )
    assert at_most(-1, trials, chance) == 0.0


@pytest.mark.parametrize("queries", [64, 65, 500, 5000])
def test_one_more_slower_query_would_not_pass(queries: int) -> None:
    slower = slower_allowed(queries, 90)
    assert passes(slower, queries, 90)
    assert not passes(slower + 1, queries, 90)


def test_the_fewest_queries_give_the_slowest_of_them_and_one_less_gives_nothing() -> None:
    ordered = [float(each) for each in range(662)]
    assert early_stopping(ordered, 99) == 661
    assert early_stopping(ordered[1:], 99) is None
    assert slower_allowed(661, 99) == 0
    assert early_stopping([], 50) is None


def test_the_estimate_is_seldom_below_the_true_percentile() -> None:
    draw = random.Random(4)
    true = 0.9  # of the uniform distribution
    low = sum(early_stopping(sorted(draw.random() for _ in range(80)), 90) < true for _ in range(1500))  # type: ignore[operator]
    assert low <= 15 + 12  # 1 % of 1500, and three standard deviations


@pytest.mark.parametrize("percentile", [0.0, 100.0, -3.0])
def test_a_percentile_that_is_none_is_refused(percentile: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 100"):
        fewest_queries(percentile)


def test_the_plain_percentile_is_loadgens_index() -> None:
    ordered = [float(each) for each in range(10)]
    assert [plain(ordered, each) for each in (50, 90, 99)] == [5, 9, 9]
    assert plain([3.0], 99.9) == 3.0


@pytest.mark.parametrize("count", [8, 9, 25, 100, 1001])
def test_the_interval_of_the_median_covers_it_and_the_next_narrower_one_does_not(count: int) -> None:
    ordered = [float(each) for each in range(1, count + 1)]
    interval = median_interval(ordered)
    assert interval is not None
    rank = int(interval[0])
    assert interval[1] == count + 1 - rank
    assert 1 - 2 * stats.binom.cdf(rank - 1, count, 0.5) >= 0.99
    assert 1 - 2 * stats.binom.cdf(rank, count, 0.5) < 0.99


@pytest.mark.parametrize("count", [0, 1, 7])
def test_too_few_values_have_no_interval(count: int) -> None:
    assert median_interval([1.0] * count) is None
