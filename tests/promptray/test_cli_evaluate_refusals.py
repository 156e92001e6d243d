"""What ``promptray evaluate`` refuses: images, tables and usage, each with the place and the cure."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.promptray.command_line import Call
from tests.promptray.labelled_samples import NAMES, SAMPLES, write_labels, write_scores


def test_refused_images_are_counted_and_listed_and_make_it_1(
    call: Call, reference_bundle: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    shutil.copytree(SAMPLES, images)
    (images / NAMES[0]).write_bytes(b"no picture")
    arguments = (
        "evaluate",
        reference_bundle,
        "--images",
        images,
        "--labels",
        write_labels(tmp_path),
        "--modality",
        "CR",
    )
    answer = call(*arguments, "--json")
    assert answer.code == 1
    (document,) = answer.documents
    assert document["refused"] == [{"image": "line 2", "code": "image.format"}]
    assert NAMES[0] not in answer.out
    assert document["scored"] == 11
    assert "1 of 12 images have no score" in answer.err
    assert "image.format" in call(*arguments).out


def test_absent_images_are_an_error_or_counted(call: Call, reference_bundle: Path, tmp_path: Path) -> None:
    labels = write_labels(tmp_path)
    labels.write_text(labels.read_text() + "absent.png,1,0,someone\n")
    arguments = ("evaluate", reference_bundle, "--images", SAMPLES, "--labels", labels, "--modality", "CR")
    answer = call(*arguments, "-o", tmp_path / "report")
    assert (answer.code, answer.out) == (1, "")
    assert "[table.image]" in answer.err
    assert f"line {len(NAMES) + 2}" in answer.err
    assert "absent.png" not in answer.err
    counted = call(*arguments, "--missing", "count", "--json")
    assert counted.code == 1
    assert counted.documents[0]["refused"] == [{"image": f"line {len(NAMES) + 2}", "code": "image.not-found"}]
    assert counted.documents[0]["scored"] == 12


BAD = {
    "missing column": ("name,pneumonia\na.png,1\n", "line 1, column file"),
    "no finding": ("file,gout\na.png,1\n", "line 1"),
    "duplicate rows": (f"file,pneumonia\n{NAMES[0]},1\n{NAMES[0]},1\n", "line 3, column file"),
    "the same file twice": (f"file,pneumonia\n{NAMES[0]},1\n./{NAMES[0]},1\n", "line 3, column file"),
    "not a number": (f"file,pneumonia\n{NAMES[0]},Smith\n", "line 2, column pneumonia"),
    "another number": (f"file,pneumonia\n{NAMES[0]},7\n", "line 2, column pneumonia"),
    "semicolons": (f"file;pneumonia\n{NAMES[0]};1\n", "line 1"),
    "empty": ("", "labels.csv"),
    "header only": ("file,pneumonia\n", "line 1"),
    "unknown file": ("file,pneumonia\nunknown.png,1\n", "labels.csv, line 2"),
    "outside": ("file,pneumonia\n../samples/x.png,1\n", "labels.csv, line 2"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_labels_are_refused_with_line_column_and_cure(
    call: Call, reference_bundle: Path, tmp_path: Path, name: str
) -> None:
    text, place = BAD[name]
    answer = call(
        "evaluate",
        reference_bundle,
        "--images",
        SAMPLES,
        "--labels",
        write_labels(tmp_path, text),
        "--modality",
        "CR",
        "--json",
    )
    assert answer.code == 1
    (document,) = answer.documents
    assert document["error"]["code"].startswith("table.")
    assert place in document["error"]["artefact"]
    assert document["error"]["cure"]
    assert "Smith" not in answer.out + answer.err


@pytest.mark.parametrize("change", ["BOM", "CRLF", "quotes"])
def test_harmless_labels_give_the_same_report(call: Call, tmp_path: Path, change: str) -> None:
    plain = write_labels(tmp_path).read_text()
    changed = {
        "BOM": "\ufeff" + plain,
        "CRLF": plain.replace("\n", "\r\n"),
        "quotes": plain.replace(",1,", ',"1",'),
    }[change]
    answers = []
    for text in (plain, changed):
        (tmp_path / "labels.csv").write_bytes(text.encode())
        answers.append(
            call("evaluate", write_scores(tmp_path), "--labels", tmp_path / "labels.csv", "--json")
        )
    assert [answer.code for answer in answers] == [0, 0]
    assert answers[0].documents[0]["groups"] == answers[1].documents[0]["groups"]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--html",),
        ("--column", "pneumonia"),
        ("--column", "a=b", "--column", "a=c"),
        ("--labels-format", "nih", "--pack", "chestxray14"),
        ("--min-patients", "0"),
        ("--draws", "0"),
        ("--uncertain", "maybe"),
    ],
)
def test_wrong_usage_is_2(
    call: Call, reference_bundle: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    images = () if not arguments else ("--images", SAMPLES)
    answer = call("evaluate", reference_bundle, "--labels", write_labels(tmp_path), *images, *arguments)
    assert (answer.code, answer.out) == (2, "")


def test_a_table_has_no_images(call: Call, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("file,finding,score\na,pneumonia,1\n")
    answer = call(
        "evaluate", tmp_path / "scores.csv", "--labels", write_labels(tmp_path), "--images", SAMPLES
    )
    assert answer.code == 2


def test_an_old_report_is_not_written_over(call: Call, reference_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("old")
    answer = call(
        "evaluate", reference_bundle, "--images", SAMPLES, "--labels", write_labels(tmp_path), "-o", tmp_path
    )
    assert answer.code == 1
    assert "[output.exists]" in answer.err
    assert (tmp_path / "scores.csv").read_text() == "old"


def test_boxes_of_absent_images_are_refused(call: Call, reference_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text("file,finding,x,y,w,h\nabsent.png,pneumonia,0,0,9,9\n")
    answer = call(
        "evaluate", reference_bundle, "--images", SAMPLES, "--labels", write_labels(tmp_path),
        "--modality", "CR", "--boxes", tmp_path / "boxes.csv",
    )  # fmt: skip
    assert answer.code == 1
    assert "boxes.csv names images that are not in the folder" in answer.err
