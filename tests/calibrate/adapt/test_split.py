from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptray.calibrate.adapt.cases import Cases, Columns, read_cases
from promptray.calibrate.adapt.split import divide, require_enough, require_separate, same_pictures
from promptray.calibrate.tables.csv_file import TableError

SHARES = {"train": 0.6, "val": 0.15, "test": 0.25}


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), min_size=1, max_size=80), st.integers(0, 5))
def test_units_stay_whole_and_the_seed_decides(rows: list[tuple[int, int]], seed: int) -> None:
    units = np.unique([row[0] for row in rows], return_inverse=True)[1]
    classes = np.array([row[1] for row in rows])
    parts = divide(units, classes, 3, SHARES, seed)
    assert set(parts) <= set(SHARES)
    assert all(len({parts[row] for row in np.flatnonzero(units == unit)}) == 1 for unit in units)
    assert divide(units, classes, 3, SHARES, seed) == parts


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(20, 60), min_size=2, max_size=4), st.integers(0, 5))
def test_single_images_are_divided_in_the_wanted_shares_of_each_class(counts: list[int], seed: int) -> None:
    classes = np.repeat(np.arange(len(counts)), counts)
    parts = np.array(divide(np.arange(len(classes)), classes, len(counts), SHARES, seed))
    for number, count in enumerate(counts):
        for part, share in SHARES.items():
            assert abs((parts[classes == number] == part).sum() - share * count) <= 1


def test_a_rare_class_is_on_both_sides_where_units_allow() -> None:
    # 12 large units; the rare class is in two of them, and must not land in train alone.
    units = np.repeat(np.arange(12), 10)
    classes = np.zeros(120, int)
    classes[[3, 4, 5, 113, 114, 115]] = 1
    for seed in range(10):
        parts = np.array(divide(units, classes, 2, {"train": 0.75, "test": 0.25}, seed))
        assert {"train", "test"} == set(parts[classes == 1])


def test_a_part_that_is_not_wanted_gets_nothing() -> None:
    parts = divide(np.arange(40), np.arange(40) % 2, 2, {"train": 0.75, "val": 0.0, "test": 0.25}, 0)
    assert {part: parts.count(part) for part in set(parts)} == {"train": 30, "test": 10}


def test_frames_of_one_file_in_two_parts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("file,frame,density,part\n1.dcm,1,a,train\n2.dcm,1,a,train\n1.dcm,2,b,test\n")
    cases = read_cases(path, ("a", "b"), {"a": "a", "b": "b"}, Columns("density", split="part"))
    with pytest.raises(TableError, match="the same file") as refused:
        require_separate(cases, ["one", "two", "one"])
    assert refused.value.artefact == "labels.csv, lines 2, 4"


def test_no_frame_and_the_first_are_one_picture(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("file,frame,density\n1.dcm,,a\n1.dcm,1,b\n1.dcm,2,b\n")
    cases = read_cases(path, ("a", "b"), {"a": "a", "b": "b"}, Columns("density"))
    assert same_pictures(cases, ["one"] * 3) == [[0, 1]]
    with pytest.raises(TableError, match="two labels") as refused:
        require_separate(cases, ["one"] * 3)
    assert refused.value.artefact == "labels.csv, lines 2, 3"


def cases_of(tmp_path: Path, rows: list[str], **columns: str) -> Cases:
    path = tmp_path / "labels.csv"
    path.write_text("file,density,patient_id,exam_id,part\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return read_cases(path, ("a", "b"), {"a": "a", "b": "b"}, Columns("density", **columns))


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (["1.png,a,Anna,e1,train", "2.png,b,Ben,e2,test", "3.png,a,Anna,e3,test"], "the same patient"),
        (["1.png,a,Anna,e1,train", "2.png,b,Ben,e2,test", "3.png,a,Cleo,e1,test"], "the same exam"),
    ],
)
def test_a_patient_in_two_parts_is_refused_by_line_and_not_by_name(
    tmp_path: Path, rows: list[str], what: str
) -> None:
    with pytest.raises(TableError) as refused:
        require_separate(cases_of(tmp_path, rows, split="part"), ["h1", "h2", "h3"])
    assert refused.value.code == "adapt.split"
    assert what in refused.value.message
    assert refused.value.artefact == "labels.csv, lines 2, 4"
    assert "Anna" not in str(refused.value)


def test_a_copy_in_two_parts_is_refused(tmp_path: Path) -> None:
    cases = cases_of(tmp_path, ["1.png,a,p,e1,train", "2.png,a,q,e2,test"], split="part")
    with pytest.raises(TableError, match="the same file, or a copy of it, is in two parts") as refused:
        require_separate(cases, ["same", "same"])
    assert refused.value.artefact == "labels.csv, lines 2, 3"
    require_separate(cases, ["one", "other"])


def test_a_picture_with_two_labels_is_refused_even_within_one_part(tmp_path: Path) -> None:
    cases = cases_of(tmp_path, ["1.png,a,p,e1,train", "2.png,b,p,e1,train"])
    with pytest.raises(TableError, match="two labels") as refused:
        require_separate(cases, ["same", "same"])
    assert refused.value.code == "adapt.split"


def test_too_few_images_of_a_class_are_named(tmp_path: Path) -> None:
    rows = [f"{n}.png,{'ab'[n % 2]},p{n},e{n}," for n in range(10)]
    cases = cases_of(tmp_path, rows)
    enough = ["train"] * 8 + ["test"] * 2
    require_enough(cases, enough, validated=False)
    with pytest.raises(TableError) as refused:
        require_enough(cases, ["train"] * 9 + ["test"], validated=False)
    assert refused.value.code == "adapt.too-few"
    assert refused.value.found == "a: 0 in test, at least 1"
    with pytest.raises(TableError) as refused:
        require_enough(cases, ["train"] * 5 + ["test"] * 5, validated=False)
    assert refused.value.found == "b: 2 in train, at least 3"
    with pytest.raises(TableError, match="no image in val"):
        require_enough(cases, enough, validated=True)
