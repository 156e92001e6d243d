"""The committed measurement of report triplets, and the measurement itself on reports of our own."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from benchmarks.reports.__main__ import RESULTS, measure
from benchmarks.reports.openi import code_map, read_reports
from benchmarks.reports.page import page
from promptray.calibrate.reports.lexicon import lexicon

FIELDS = ("report_id", "findings", "impression", "mesh_major")
ROWS = [
    ("1", "Mild cardiomegaly. No effusion.", "", "Cardiomegaly/mild"),
    ("2", "Left basilar atelectasis.", "", "Pulmonary Atelectasis/base/left"),
    ("3", "Clear lungs.", "No acute disease.", "normal"),
    ("4", "Scoliosis.", "", "No Indexing"),
    ("5", "", "", "Cardiomegaly"),
    ("6", "Heart normal.", "", "Cardiac Shadow/enlarged"),
    ("7", "", "Effusion.", "normal"),
    *((str(n), "No edema.", "", "normal") for n in range(8, 30)),
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "reports.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([FIELDS, *ROWS])
    return path


def test_reports_without_text_or_codes_are_left_out(table: Path) -> None:
    reports = list(read_reports(table, code_map().excluded))
    assert len(reports) == len(ROWS) - 2
    assert {report.half for report in reports} == {"tuning", "untouched"}


def test_agreement_is_counted(table: Path) -> None:
    codes = code_map()
    result = measure(list(read_reports(table, codes.excluded)), codes)
    rows = {row["finding"]: row for row in result["agreement"]["present"]["both"]["findings"]}
    assert rows["cardiomegaly"] == {
        "finding": "cardiomegaly",
        "coded": 2,
        "precision": 1.0,
        "recall": 0.5,
        "f1": 0.667,
    }
    assert rows["pleural effusion"]["precision"] == 0.0
    assert result["agreement"]["present"]["both"]["means"]["all"]["micro"]["f1"] == round(
        2 * 2 / (2 * 2 + 2), 3
    )
    assert result["places"]["both"] == {"sides": {"coded": 1, "same": 1}, "regions": {"coded": 1, "same": 1}}


def test_the_mapping_names_findings_of_the_lexicon_and_no_code_twice() -> None:
    findings = code_map().findings
    assert {key for finding in findings for key in finding.keys} <= set(lexicon().findings)
    assert all(len(set(finding.codes)) == len(finding.codes) for finding in findings)


def test_the_committed_page_is_that_of_the_committed_result() -> None:
    result = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert RESULTS.with_suffix(".md").read_text(encoding="utf-8") == page(result)


def test_the_target_holds_in_the_committed_result() -> None:
    result = json.loads(RESULTS.read_text(encoding="utf-8"))
    for half in ("tuning", "untouched"):
        means = result["agreement"]["present"][half]["means"]["10 most frequent"]
        assert means["micro_f1_interval"][0] >= 0.85


def test_the_committed_result_is_still_true(data_dir: Path | None) -> None:
    if data_dir is None:
        pytest.skip("needs --data with Open-I's reports, whose licence forbids to ship them")
    codes = code_map()
    result = measure(list(read_reports(data_dir / "reports" / "openi_reports.csv", codes.excluded)), codes)
    committed = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert [result[key] for key in ("reports", "agreement", "places")] == [
        committed[key] for key in ("reports", "agreement", "places")
    ]
