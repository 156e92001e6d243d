"""Latencies and stages as the report says them."""

from __future__ import annotations

import pytest

from promptray.calibrate.bench.summary import REST, latency, median, stages


def test_no_percentile_is_printed_that_the_queries_do_not_support() -> None:
    found = latency([0.001 * each for each in range(1, 65)])
    assert [row.percentile for row in found.percentiles] == [50, 90]
    assert (found.next_percentile, found.next_queries) == (95, 130)
    row = found.percentiles[1]
    assert (row.plain_ms, row.early_stopping_ms, row.discarded) == (58, 64, 0)
    assert (found.queries, found.mean, found.least, found.greatest) == (64, 32.5, 1, 64)
    assert found.each[:3] == [1, 2, 3]


def test_few_queries_have_no_percentile_at_all() -> None:
    found = latency([0.001] * 10)
    assert found.percentiles == []
    assert (found.next_percentile, found.next_queries) == (50, 11)


def test_the_highest_percentile_has_no_next_one() -> None:
    found = latency([0.001] * 7000)
    assert [row.percentile for row in found.percentiles] == [50, 90, 95, 97, 99, 99.9]
    assert (found.next_percentile, found.next_queries) == (None, None)


def test_wanted_percentiles_stand_among_the_usual_ones() -> None:
    assert [row.percentile for row in latency([0.001] * 700, [98.0]).percentiles] == [50, 90, 95, 97, 98, 99]


def test_queries_that_were_not_served_are_slower_than_any() -> None:
    found = latency([0.001 * each for each in range(1, 61)], unserved=203)
    assert (found.queries, found.unserved, len(found.each)) == (263, 203, 60)
    assert (found.mean, found.greatest, found.median, found.percentiles) == (None, None, None, [])
    assert (found.least, found.next_percentile) == (1, 99)
    few = latency([0.001] * 100, unserved=2)
    assert [row.percentile for row in few.percentiles] == [50, 90]
    assert few.median is not None
    assert (few.median.value, few.median.samples, few.mean) == (1, 102, None)


def test_stages_and_rest_add_up_to_the_whole() -> None:
    found = stages([0.010, 0.030], [{"read": 2.0, "image": 6.0}, {"read": 4.0, "image": 20.0, "head": 5.0}])
    assert [stage.name for stage in found] == ["read", "image", "head", REST]
    assert [stage.mean for stage in found] == pytest.approx([3.0, 13.0, 2.5, 1.5])
    assert sum(stage.mean for stage in found) == pytest.approx(20.0)
    assert sum(stage.share for stage in found) == pytest.approx(1.0)


def test_a_median_of_few_values_has_no_interval() -> None:
    assert (median([3.0, 1.0]).value, median([3.0, 1.0]).low) == (2.0, None)
    wide = median([float(each) for each in range(8)])
    assert (wide.low, wide.high, wide.samples) == (0, 7, 8)
