from __future__ import annotations

from pathlib import Path

import pytest

from promptray.calibrate.adapt.id_columns import find_id_column, number_ids, suspected
from promptray.calibrate.tables.csv_file import Table, TableError, read_table


def table_of(tmp_path: Path, header: str, *rows: str) -> Table:
    path = tmp_path / "labels.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return read_table(path)


@pytest.mark.parametrize(
    "name",
    [
        "patient_id", "MRN", "mrn", "mrn_hash", "case_id", "caseid", "empi_anon", "Patientennummer",
        "patient_key", "patient name", "patient_name", "PatientName", "person_id", "subject", "pid",
        "Patient-ID", "deid_patient", "subject id", "ParticipantNo", "hospital_number", "pat_nr", "USUBJID",
        "Patiënt", "Patienten", "id_paciente", "patient_no", "patient_hash", "PatientUID", "patient_id_anon",
        "person", "patients_id", "anon_mrn",
    ],
)  # fmt: skip
def test_usual_names_of_patients_are_found(tmp_path: Path, name: str) -> None:
    assert find_id_column(table_of(tmp_path, f"file,density,{name}", "a.png,F,1"), "patient", ()) == name


@pytest.mark.parametrize(
    "name",
    [
        "Patient Age", "patient_sex", "PatientBirthDate", "age_of_patient", "PatientOrientation", "inpatient",
        "outpatient", "subjective_quality", "template", "case", "temp_id", "density", "empirical_score",
        "patient_weight_kg", "patient_image_id", "PatientExamID", "patient_class", "n_patients",
        "num_patients", "patient_bmi", "patient_outcome", "patient_density", "patient_label", "patient_site",
        "patient_smoker", "patient_date", "Patientengewicht", "PatientIdentityRemoved", "study_subject_id",
        "personal_number",
    ],
)  # fmt: skip
def test_what_numbers_nobody_is_no_patient(tmp_path: Path, name: str) -> None:
    assert find_id_column(table_of(tmp_path, f"file,{name}", "a.png,1"), "patient", ()) is None


@pytest.mark.parametrize("name", ["exam_id", "StudyInstanceUID", "acc_anon", "Accession Number", "study"])
def test_usual_names_of_exams_are_found(tmp_path: Path, name: str) -> None:
    assert find_id_column(table_of(tmp_path, f"file,{name}", "a.png,1"), "exam", ()) == name


def test_several_candidates_are_refused_until_one_is_said(tmp_path: Path) -> None:
    table = table_of(tmp_path, "file,MRN,patient_name", "a.png,1,secret")
    with pytest.raises(TableError) as refused:
        find_id_column(table, "patient", ())
    assert (refused.value.code, refused.value.cure) == ("table.format", "say --patient COLUMN")
    assert refused.value.expected == "one of MRN, patient_name"
    assert find_id_column(table, "patient", ("patient_name",)) == "MRN"


@pytest.mark.parametrize(
    ("one", "other"),
    [("p001", "P001"), ("7", "007"), ("7", "7.0"), ("P 12", "P12"), ("x1-02", "x1-2"), ("7", "7\u200b")],
)
def test_ids_that_differ_in_writing_only_are_refused_by_line(tmp_path: Path, one: str, other: str) -> None:
    table = table_of(tmp_path, "file,mrn", f"a.png,{one}", "b.png,z", f"c.png,{other}")
    with pytest.raises(TableError) as refused:
        number_ids(table, "mrn")
    assert refused.value.code == "table.format"
    assert refused.value.artefact == "labels.csv, line 4, column mrn"
    assert refused.value.found == "the other is in line 2"


def test_groups_may_differ_in_zeros(tmp_path: Path) -> None:
    table = table_of(tmp_path, "file,block", "a.png,7", "b.png,007", "c.png,7.0", "d.png,7")
    assert number_ids(table, "block", zeros=True).tolist() == [1, 0, 2, 1]
    table = table_of(tmp_path, "file,site", "a.png,North", "b.png,north")
    with pytest.raises(TableError, match="in writing only"):
        number_ids(table, "site", zeros=True)


def test_other_ids_are_other_numbers(tmp_path: Path) -> None:
    ids = ["10", "1", "100", "1001", "1.1", "1.10", "p-1", "p1", "0.05", "0.5", "1.2.05.3", "1.2.5.3", "10"]
    numbers = number_ids(table_of(tmp_path, "mrn", *ids), "mrn").tolist()
    assert numbers[0] == numbers[-1]
    assert len(set(numbers)) == len(ids) - 1


def test_columns_that_join_rows_and_are_named_like_ids_are_suspected(tmp_path: Path) -> None:
    rows = [f"{n},{n // 2},{n // 2},one" for n in range(10)]
    table = table_of(tmp_path, "image_id,badge_no,side,site_id", *rows)
    assert suspected(table, table.columns) == ("badge_no",)


@pytest.mark.parametrize(
    ("name", "pointed_out"),
    [
        ("badge_no", True), ("BadgeID", True), ("Fallnummer", True), ("case key", True), ("site-code", True),
        ("patient_bmi", True), ("PatientIdentityRemoved", True), ("study_subject_id", True), ("mrn_2", True),
        ("covid", False), ("thyroid", False), ("valid", False), ("barcode", False), ("COVID", False),
        ("inpatient", False), ("subjective_quality", False), ("kidney", False), ("id_check", False),
    ],
)  # fmt: skip
def test_of_what_joins_rows_the_name_decides(tmp_path: Path, name: str, pointed_out: bool) -> None:
    table = table_of(tmp_path, f"file,{name}", *(f"{n}.png,{n // 2}" for n in range(10)))
    assert (suspected(table, (name,)) == (name,)) == pointed_out
