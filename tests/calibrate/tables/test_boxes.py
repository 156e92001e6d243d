"""Boxes as a CSV has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptray.calibrate.tables.boxes import Box, read_boxes
from promptray.calibrate.tables.csv_file import TableError


def read(folder: Path, content: str) -> dict[str, dict[str, list[Box]]]:
    (folder / "boxes.csv").write_text(content)
    return read_boxes(folder / "boxes.csv", ("mass",))


def test_several_boxes_of_one_finding(tmp_path: Path) -> None:
    found = read(tmp_path, "file,finding,x,y,w,h\na,mass,1,2,3,4\na,mass,0,0,1.5,1\n")
    assert found == {"a": {"mass": [Box(1, 2, 3, 4), Box(0, 0, 1.5, 1)]}}


def test_a_box_holds_its_left_and_top_border_only() -> None:
    box = Box(10, 20, 5, 5)
    inside = [
        box.holds(10, 20),
        box.holds(14.9, 24.9),
        box.holds(15, 20),
        box.holds(10, 25),
        box.holds(9, 20),
    ]
    assert inside == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("content", "code", "place"),
    [
        ("file,finding,x,y,w\na,mass,1,2,3\n", "table.format", "boxes.csv, line 1, column h"),
        ("file,finding,x,y,w,h\na,lump,1,2,3,4\n", "table.finding", "boxes.csv, line 2, column finding"),
        ("file,finding,x,y,w,h\na,mass,1,2,0,4\n", "table.format", "boxes.csv, line 2, column w"),
        ("file,finding,x,y,w,h\na,mass,1,2,3,-4\n", "table.format", "boxes.csv, line 2, column h"),
        ("file,finding,x,y,w,h\na,mass,left,2,3,4\n", "table.format", "boxes.csv, line 2, column x"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: str, code: str, place: str) -> None:
    with pytest.raises(TableError) as caught:
        read(tmp_path, content)
    assert (caught.value.code, caught.value.artefact) == (code, place)
