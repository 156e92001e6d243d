from __future__ import annotations

from pathlib import Path

import pytest

from promptray.calibrate.adapt.cases import Cases, Columns, read_cases
from promptray.calibrate.tables.csv_file import TableError

KEYS = ("fatty", "dense")
NAMES = {"fatty": "fatty", "dense": "dense", "F": "fatty"}


def read(tmp_path: Path, text: str, columns: Columns | None = None) -> Cases:
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return read_cases(path, KEYS, NAMES, columns or Columns("density"))


def test_a_table_gives_classes_ids_and_parts(tmp_path: Path) -> None:
    cases = read(
        tmp_path,
        "file,density,PatientID,study_id,site,part,age\n"
        "a.png,F,x,1,n,training,50\nb.png,dense,y,2,n,Valid,51\nc.png,fatty,x,1,s,test,52\n",
        Columns("density", group="site", split="part"),
    )
    assert cases.classes.tolist() == [0, 1, 0]
    assert {kind: numbers.tolist() for kind, numbers in cases.ids.items()} == {
        "patient": [0, 1, 0],
        "exam": [0, 1, 0],
        "group": [0, 0, 1],
    }
    assert cases.columns == {"patient": "PatientID", "exam": "study_id", "group": "site"}
    assert cases.parts == ["train", "val", "test"]
    assert cases.unused == ("age",)
    assert cases.lines == [2, 3, 4]


def test_rows_without_a_class_are_counted(tmp_path: Path) -> None:
    cases = read(tmp_path, "file,density\na.png,F\nb.png,\nc.png,dense\n")
    assert [image.file for image in cases.images] == ["a.png", "c.png"]
    assert cases.unlabelled == 1
    assert cases.ids == {}


def test_a_column_named_outright_is_taken_instead_of_the_usual(tmp_path: Path) -> None:
    cases = read(
        tmp_path, "file,density,patient_id,person\na.png,F,,p\n", Columns("density", patient="person")
    )
    assert cases.columns == {"patient": "person"}
    assert cases.unused == ("patient_id",)


def test_several_columns_of_exams_are_asked_about_only_where_no_patient_is_known(tmp_path: Path) -> None:
    header = "file,density,AccessionNumber,StudyID"
    assert read(tmp_path, f"{header},PatientID\na.png,F,,1,x\n").columns == {"patient": "PatientID"}
    with pytest.raises(TableError) as refused:
        read(tmp_path, f"{header}\na.png,F,7,1\n")
    assert refused.value.cure == "say --exam COLUMN"


def test_an_export_of_an_archive_is_read_as_it_is(tmp_path: Path) -> None:
    """Its StudyID says 1 everywhere, and its AccessionNumber nothing."""
    header, rows = (
        "file,density,AccessionNumber,StudyID,StudyInstanceUID",
        ("a.png,F,,1,1.2", "b.png,F,,1,1.3"),
    )
    for patient, known in ((",PatientID", {"patient": "PatientID"}), ("", {})):
        text = "\n".join([header + patient, *(row + ",x" * bool(patient) for row in rows), ""])
        cases = read(tmp_path, text)
        assert cases.columns == {**known, "exam": "StudyInstanceUID"}
        assert cases.ids["exam"].tolist() == [0, 1]


def test_exams_without_ids_are_not_known(tmp_path: Path) -> None:
    """AccessionNumber is DICOM's, and may be empty (type 2); nothing else of the table names exams."""
    cases = read(tmp_path, "file,density,AccessionNumber\na.png,F,\nb.png,dense,\n")
    assert (cases.columns, cases.unused) == ({}, ("AccessionNumber",))


def test_exams_of_some_rows_are_left_to_the_patients(tmp_path: Path) -> None:
    cases = read(tmp_path, "file,density,AccessionNumber,PatientID\na.png,F,7,x\nb.png,dense,,y\n")
    assert cases.columns == {"patient": "PatientID"}
    assert cases.unused == ("AccessionNumber",)


@pytest.mark.parametrize("columns", [Columns("density"), Columns("density", exam="AccessionNumber")])
def test_exams_of_some_rows_alone_are_refused_by_line(tmp_path: Path, columns: Columns) -> None:
    """Images of an exam that nobody knows could be in train and in test."""
    text = "file,density,AccessionNumber\na.png,F,7\nb.png,F,\nc.png,F,\n"
    with pytest.raises(TableError) as refused:
        read(tmp_path, text, columns)
    assert "line 3, column AccessionNumber" in str(refused.value.artefact)
    assert refused.value.found == "2 of 3 empty: line 3, 4"
    assert "take the column out" in str(refused.value.cure)


def test_uids_with_zeros_and_groups_written_as_numbers_are_read(tmp_path: Path) -> None:
    cases = read(
        tmp_path,
        "file,density,study_id,dose\na.png,F,1.2.05.3,7\nb.png,dense,1.2.5.3,7.0\n",
        Columns("density", group="dose"),
    )
    assert {kind: len(set(numbers.tolist())) for kind, numbers in cases.ids.items()} == {
        "exam": 2,
        "group": 2,
    }


def test_frames_are_images_of_their_own(tmp_path: Path) -> None:
    cases = read(tmp_path, "file,density,frame\na.dcm,F,1\na.dcm,dense,2\n")
    assert [image.name for image in cases.images] == ["a.dcm#1", "a.dcm#2"]


@pytest.mark.parametrize(
    ("text", "columns", "code", "place"),
    [
        ("file,density\na.png,F\n", Columns("birads"), "table.format", "column birads"),
        ("file,density\na.png,Mrs Smith\n", Columns("density"), "table.finding", "line 2, column density"),
        ("file,density\na.png,\n", Columns("density"), "table.format", "column density"),
        (
            "file,density,patient_id\na.png,F,\n",
            Columns("density"),
            "table.format",
            "line 2, column patient_id",
        ),
        ("file,density,patient,subject\na.png,F,1,2\n", Columns("density"), "table.format", "line 1"),
        ("file,density,part\na.png,F,dev\n", Columns("density", split="part"), "table.format", "line 2"),
        ("file,density,part\na.png,F,\n", Columns("density", split="part"), "table.format", "line 2"),
        ("file,density\na.png,F\na.png,F\n", Columns("density"), "table.format", "line 3"),
        ("file,density\na.png,F\n", Columns("density", patient="file"), "table.format", "column file"),
        ("file,density\na.png,F\n", Columns("density", group="file"), "table.format", "column file"),
        (
            "file,density,modality\na.png,F,MG\n",
            Columns("density", patient="modality"),
            "table.format",
            "column modality",
        ),
        ("file,density\na.png,F\n", Columns("density", patient="density"), "table.format", "column density"),
        (
            "file,density,part\na.png,F,train\n",
            Columns("density", exam="part", split="part"),
            "table.format",
            "column part",
        ),
    ],
)
def test_what_is_wrong_is_named_without_its_value(
    tmp_path: Path, text: str, columns: Columns, code: str, place: str
) -> None:
    with pytest.raises(TableError) as refused:
        read(tmp_path, text, columns)
    assert refused.value.code == code
    assert place in (refused.value.artefact or "")
    assert "Smith" not in str(refused.value)
