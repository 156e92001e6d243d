from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from promptray.calibrate.adapt.cases import Columns, read_cases
from promptray.calibrate.adapt.data import Data, notes_of, prepare, require_readable
from promptray.calibrate.adapt.part_tables import part_labels, splits
from promptray.calibrate.tables.csv_file import TableError
from promptray.calibrate.tables.image_folder import ImageFolder
from tests.calibrate.adapt.made_site import CLASSES, write_images, write_table

NAMES = {key: key for key in CLASSES}


def prepared(folder: Path, rows: list[dict[str, str]], val: float = 0.2, **columns: str) -> Data:
    cases = read_cases(
        write_table(folder / "labels.csv", rows), CLASSES, NAMES, Columns("density", **columns)
    )
    images = ImageFolder(folder / "images")
    return prepare(
        cases, images, test=0.25, val=val, seed=0, missing="error", progress=lambda stage, what, part: None
    )


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, str]]:
    return write_images(tmp_path / "images", 36)


def test_val_is_taken_from_train_in_whole_patients(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    for number, row in enumerate(rows):
        row["part"] = "test" if number >= 54 else "train"
    data = prepared(tmp_path, rows, split="part")
    assert data.how == "stated, val taken from train"
    assert data.division().seed == 0
    assert [data.parts[row] for row in range(54, 72)] == ["test"] * 18
    assert 6 <= data.parts.count("val") <= 14
    for unit in np.unique(data.units):
        assert len({data.parts[row] for row in np.flatnonzero(data.units == unit)}) == 1
    assert set(data.cases.classes[data.rows("val")]) == {0, 1, 2}
    without = prepared(tmp_path, rows, val=0.0, split="part")
    assert (without.how, without.division().seed, set(without.parts)) == ("stated", None, {"train", "test"})


def test_a_stated_val_is_kept_and_said_to_be_unused_without_fine_tuning(
    tmp_path: Path, rows: list[dict[str, str]]
) -> None:
    for number, row in enumerate(rows):
        row["part"] = ("train", "val", "test")[number // 24]
    data = prepared(tmp_path, rows, split="part")
    assert [data.parts.count(part) for part in ("train", "val", "test")] == [24, 24, 24]
    assert any("val is not used" in note for note in notes_of(data, ["probe"]))
    assert not any("val is not used" in note for note in notes_of(data, ["probe", "fine-tune"]))


@pytest.mark.parametrize(
    ("column", "level", "said"),
    [
        ("patient_id", "patient", "together by the column patient_id (patient)."),
        ("exam_id", "exam", "together by the column exam_id (exam).|one with several exams"),
        ("site", "group", "together by the column site (group).|whether a patient is in two groups"),
        ("", "image", "optimistic"),
    ],
)
def test_what_is_kept_whole_is_said(
    tmp_path: Path, rows: list[dict[str, str]], column: str, level: str, said: str
) -> None:
    for row in rows:
        patient = row.pop("patient_id")
        if column:
            row[column] = patient
    data = prepared(tmp_path, rows, **({"group": "site"} if column == "site" else {}))
    division = data.division()
    assert division.level == level
    assert sum(part.units for part in division.parts) == (36 if column else 72)
    notes = notes_of(data, ["probe", "fine-tune"])
    for note, part in zip(notes, said.split("|"), strict=True):
        assert part in note


def test_frames_of_one_file_are_one_unit_and_a_picture_counts_once(
    tmp_path: Path, rows: list[dict[str, str]]
) -> None:
    """The door is not asked here, so a PNG may stand for an object of three frames."""
    for row in rows:
        row["frame"] = ""
        del row["patient_id"]
    frames = [{**rows[0], "frame": str(number)} for number in (1, 2, 3)]
    data = prepared(tmp_path, [*rows, *frames])
    assert data.copies == [[f"line {len(rows) + 2}", "line 2"]]
    names = [image.name for image in data.cases.images]
    assert len(names) == len(rows) + 2
    assert "p000-0.png" not in names  # whichever row is first, the one that states its frame is kept
    same = [data.units[names.index(f"p000-0.png#{number}")] for number in (1, 2, 3)]
    assert len(set(same)) == 1
    assert any("several rows are about: 1. Each counts once" in note for note in notes_of(data, ["probe"]))


def test_a_copy_joins_the_patients_of_its_rows(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    shutil.copy(tmp_path / "images" / "p000-0.png", tmp_path / "images" / "p003-0.png")
    data = prepared(tmp_path, rows)
    names = [image.name for image in data.cases.images]
    assert "p003-0.png" not in names
    assert data.units[names.index("p000-1.png")] == data.units[names.index("p003-1.png")]


@pytest.mark.parametrize("first", [0, 1])
def test_of_copies_the_row_that_states_most_is_kept(
    tmp_path: Path, rows: list[dict[str, str]], first: int
) -> None:
    shutil.copy(tmp_path / "images" / "p000-0.png", tmp_path / "images" / "p000-1.png")
    for row in rows:
        row["modality"] = ""
    rows[first]["modality"] = "MG"
    data = prepared(tmp_path, rows)
    assert data.copies == [[f"line {first + 2}", f"line {1 - first + 2}"]]
    assert [image.file for image in data.cases.images if image.modality] == [f"p000-{first}.png"]


def test_copies_of_two_modalities_are_refused_by_line(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    shutil.copy(tmp_path / "images" / "p000-0.png", tmp_path / "images" / "p000-1.png")
    for row, modality in zip(rows, ("MG", "DX", *[""] * len(rows)), strict=False):
        row["modality"] = modality
    with pytest.raises(TableError, match="one picture has two modalities") as refused:
        prepared(tmp_path, rows)
    assert (refused.value.code, refused.value.artefact) == ("adapt.split", "labels.csv, lines 2, 3")
    rows[1]["modality"] = "mg"
    assert len(prepared(tmp_path, rows).copies) == 1


def test_a_column_that_may_number_people_is_pointed_out(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    for row in rows:
        row["badge_no"] = row["patient_id"]
    assert not any("badge_no" in note for note in notes_of(prepared(tmp_path, rows), ["probe"]))
    for row in rows:
        del row["patient_id"]
    data = prepared(tmp_path, rows)
    assert data.cases.unused == data.cases.suspected == ("badge_no",)
    assert any("The column badge_no is not used" in note for note in notes_of(data, ["probe"]))


def test_splits_name_files_and_numbers_only(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    text = splits(prepared(tmp_path, rows)).decode()
    assert text.startswith("file,frame,class,part,unit\np000-0.png,,dark,")
    assert "secret" not in text


def test_labels_of_a_part_hold_units_where_images_hang_together(
    tmp_path: Path, rows: list[dict[str, str]]
) -> None:
    data = prepared(tmp_path, rows)
    header, *lines = part_labels(data, "test").decode().splitlines()
    assert header == "file,frame,modality,patient_id,dark,grey,bright"
    assert len(lines) == data.parts.count("test")
    first = data.rows("test")[0]
    truth = ",".join("1" if number == data.cases.classes[first] else "0" for number in range(3))
    assert lines[0] == f"{data.cases.images[first].file},,,{data.units[first] + 1},{truth}"
    assert "secret" not in "".join(lines)
    for row in rows:
        del row["patient_id"]
    assert part_labels(prepared(tmp_path, rows), "test").startswith(b"file,frame,modality,dark,grey,bright\n")


def test_the_cure_of_an_undeclared_modality_names_the_option() -> None:
    with pytest.raises(TableError) as refused:
        require_readable({"a.png": "image.modality-undeclared"}, 2, "labels.csv", "error")
    assert refused.value.cure == "say --modality MODALITY, or add a column modality to the table"
    with pytest.raises(TableError, match="cannot be used") as refused:
        require_readable({"a.png": "image.format"}, 2, "labels.csv", "error")
    assert "--missing count" in (refused.value.cure or "")


def test_a_file_that_may_not_be_read_is_refused_before_anything_else(
    tmp_path: Path, rows: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from promptray.calibrate.adapt import data as module

    def hash_file(path: Path) -> tuple[str, int]:
        if path.name == "p002-1.png":
            raise PermissionError
        return path.name, 0

    monkeypatch.setattr(module, "hash_file", hash_file)
    with pytest.raises(TableError) as refused:
        prepared(tmp_path, rows)
    assert refused.value.code == "adapt.images"
    assert refused.value.artefact == "labels.csv, line 7 (image.not-found)"
