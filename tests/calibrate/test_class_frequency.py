"""Head, medium and tail as CARZero's protocol has them."""

from __future__ import annotations

from promptray.calibrate.class_frequency import split_by_frequency


def test_tail_is_at_most_ten_and_head_is_above_the_65th_percentile() -> None:
    counts = {str(count): count for count in (0, 10, 11, 20, 30, 40, 50, 60, 70, 80, 1000)}
    # Place 0.65 * 10 = 6.5 of the sorted counts: half way between 50 and 60.
    parts = split_by_frequency(counts)
    assert [key for key in counts if parts[key] == "tail"] == ["0", "10"]
    assert [key for key in counts if parts[key] == "medium"] == ["11", "20", "30", "40", "50"]
    assert [key for key in counts if parts[key] == "head"] == ["60", "70", "80", "1000"]


def test_a_rare_finding_is_tail_even_where_the_others_are_rarer() -> None:
    assert split_by_frequency({"a": 9, "b": 1, "c": 1}) == {"a": "tail", "b": "tail", "c": "tail"}


def test_counts_of_open_i_have_no_padchest_tail_but_one() -> None:
    counts = [711, 493, 346, 174, 13, 157, 158, 44, 144, 193, 39, 68, 97, 189, 819, 7, 416, 781]
    parts = list(split_by_frequency({str(n): count for n, count in enumerate(counts)}).values())
    assert parts.count("tail") == 1
    assert parts.count("head") == 6  # place 0.65 * 17 = 11.05 of the sorted counts: six are above


def test_nothing_to_split() -> None:
    assert split_by_frequency({}) == {}
