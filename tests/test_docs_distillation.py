"""What docs/distillation.md says of students is what the committed result says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "distillation.md").read_text(encoding="utf-8").partition("## Measured")[2]
RESULT = json.loads((ROOT / "benchmarks" / "results" / "distil.json").read_text(encoding="utf-8"))
CROSS_FITTED = RESULT["agreement"]["cross-fitted"]
STUDENTS = ("own tower with 2 layers", "own tower with 1 layer")


def cells(row: str) -> list[str]:
    """Return a line of the students' table: one cell for each student."""
    (line,) = re.findall(rf"^\| {re.escape(row)} \|(.*)\|$", PAGE, flags=re.MULTILINE)
    return [cell.strip().replace("**", "") for cell in line.split("|")]


def gate(student: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in student["gates"] if each["name"] == name)


@pytest.mark.parametrize("number", [0, 1])
def test_the_students_table_is_what_was_measured(number: int) -> None:
    student = CROSS_FITTED[STUDENTS[number]]
    findings = student["auroc"]["findings"]
    rows = {"AUROC of teacher and student: pneumonia": "pneumonia", "bacterial": "bacterial pneumonia",
            "viral": "viral pneumonia", "none": "no pneumonia"}  # fmt: skip
    for row, key in rows.items():
        each = findings[key]
        assert cells(row)[number] == f"{each['teacher']:.3f}, {each['student']:.3f}"
    loss = student["auroc"]["mean loss"]
    interval = f"{loss['value']:.3f} ({loss['low']:.3f} to {loss['high']:.3f})"
    assert cells("loss within folds, mean (95 %)")[number] == interval
    assert cells("loss within folds, worst finding")[number] == f"{student['auroc']['worst loss']:.3f}"


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    ("row", "name", "shown"),
    [
        ("gate of the mean loss, folds pooled", "auroc_loss", "{:.3f}"),
        ("gate of the worst finding's", "class_auroc_loss", "{:.3f}"),
        ("flips of the worst finding", "finding_flips", "{:.1%}"),
        ("lowest rank correlation", "spearman", "{:.3f}"),
    ],
)
def test_the_gates_of_students_are_told_as_they_were(row: str, name: str, shown: str, number: int) -> None:
    found = gate(CROSS_FITTED[STUDENTS[number]], name)
    cell = cells(row)[number].replace(" %", "%")
    assert found["verdict"] in cell
    stated = float(re.findall(r"-?[\d.]+", cell)[0])
    assert stated == pytest.approx(found["value"] * (100 if "%" in cell else 1), rel=0.05)
    if found["verdict"] == "inconclusive":
        assert str(found["patients_needed"]) in cell


def test_nothing_is_said_to_pass_that_was_refused() -> None:
    verdicts = [each["verdict"] for each in CROSS_FITTED.values()]
    verdicts += [each["verdict"] for each in RESULT["agreement"]["committed"].values()]
    assert set(verdicts) == {"refused"}
    assert "No bundle would be written of either" in PAGE


@pytest.mark.parametrize("name", sorted(RESULT["speed"].keys() - {"teacher"}))
def test_shares_of_time_are_those_of_the_result(name: str) -> None:
    stated = re.search(rf"`{name}`\s+([\d.]+) \(([\d.]+) to ([\d.]+)\)", PAGE)
    assert stated
    found = RESULT["speed"][name]
    for text, key in zip(stated.groups(), ("ratio", "ratio_q1", "ratio_q3"), strict=True):
        places = len(text.partition(".")[2])
        assert text == f"{found[key]:.{places}f}"


TEXT = json.loads((ROOT / "benchmarks" / "results" / "text_student.json").read_text(encoding="utf-8"))


def table(first: str) -> list[list[str]]:
    """Return the cells of the smaller text side's tables' lines whose first cell matches."""
    page = PAGE.partition("**A smaller text side.**")[2]
    lines = re.findall(rf"^\| (?:{first}) \|.*\|$", page, flags=re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_smaller_text_sides_are_told_as_they_were_gated() -> None:
    found, expected = TEXT["agreement"], []
    for name, student in found["students"].items():
        loss, flips, ranks = (gate(student, each) for each in ("auroc_loss", "finding_flips", "spearman"))
        expected.append(
            [
                name.removesuffix(" blocks"),
                f"{student['text_graph_bytes'] / found['teacher_text_graph_bytes']:.2f}",
                f"{loss['value']:.4f} ({loss['low']:.4f} to {loss['high']:.4f})",
                f"{flips['value'] * 100:.1f} %",
                f"{ranks['value']:.3f}",
                student["verdict"],
            ]
        )
    assert table(r"\d of 4") == expected
    wordings, settings = found["wordings"], found["settings"]
    assert f"{settings['epochs']} epochs on {wordings['learned']} wordings" in PAGE
    assert f"{settings['held_out']} held-out wordings on {found['images']} radiographs" in PAGE


def test_the_smaller_text_sides_save_what_was_measured() -> None:
    graphs, expected = TEXT["full_size"]["graphs"], []
    for count in (12, 6, 4, 2):
        kinds = [graphs[f"{count} blocks, {kind}"] for kind in ("fp32", "int8-dynamic")]
        shares = [f"{each[part]:.2f}" for each in kinds for part in ("ratio", "bytes_ratio")]
        expected.append([str(count), *shares])
    assert table(r"\d+") == expected
