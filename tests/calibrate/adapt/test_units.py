from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from promptray.calibrate.adapt.units import rows_of_same, units_of

NUMBERS = st.integers(0, 6)


def test_what_hangs_together_at_second_hand_is_one_unit() -> None:
    patients, groups = np.array([0, 0, 1, 2, 3]), np.array([0, 1, 1, 2, 3])
    hashes = ["a", "b", "c", "d", "d"]
    units = units_of(5, {"patient": patients, "group": groups}, hashes)
    assert units.tolist() == [0, 0, 0, 1, 1]


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=40))
def test_units_are_the_finest_division_that_parts_nothing(rows: list[tuple[int, int, int]]) -> None:
    patients, exams, hashes = (np.array([row[n] for row in rows]) for n in range(3))
    units = units_of(len(rows), {"patient": patients, "exam": exams}, [str(each) for each in hashes])
    joined = np.array([[any(a == b for a, b in zip(one, two, strict=True)) for two in rows] for one in rows])
    reach = joined
    for _ in rows:  # the transitive closure, by brute force
        reach = (reach.astype(int) @ joined.astype(int)) > 0
    assert (np.equal.outer(units, units) == reach).all()
    assert units[0] == 0
    assert set(units) == set(range(units.max() + 1))


def test_rows_of_the_same_are_found() -> None:
    assert rows_of_same(["a", "b", "a", "c", "a", "b"]) == [[0, 2, 4], [1, 5]]
    assert rows_of_same(["a", "b"]) == []
