"""``promptray exam``: tables, JSON, declared views, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from tests import dicom_factory
from tests.examinations import PICTURES, VIEWS, density_bundle, mammogram, with_rule, write_study
from tests.promptray.command_line import Call

ROOT = Path(__file__).parents[2]


@pytest.fixture
def density(shared_dir: Path) -> Path:
    return density_bundle(shared_dir)


def test_a_folder_is_an_examination(call: Call, density: Path, tmp_path: Path) -> None:
    write_study(tmp_path / "study")
    answer = call("exam", density, tmp_path / "study")
    assert (answer.code, answer.err) == (0, "")
    for text in (
        "examination",
        "expected rank",
        "not dense",
        "R CC, R MLO",
        "0-LCC.dcm",
        "greatest expected",
    ):
        assert text in answer.out
    assert "Missing views" not in answer.out
    assert dicom_factory.NAME not in answer.out


def test_json_is_one_document_by_the_committed_schema(call: Call, density: Path, tmp_path: Path) -> None:
    paths = write_study(tmp_path, VIEWS[:3])
    answer = call("exam", density, *paths, "--json", "--no-site")
    assert answer.code == 0
    (document,) = answer.documents
    schema = json.loads((ROOT / "docs" / "exam.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(document)
    assert document["missing_views"] == ["R MLO"]
    assert [image["name"] for image in document["images"]] == [path.name for path in paths]


def test_missing_views_and_left_out_images_are_said(call: Call, density: Path, tmp_path: Path) -> None:
    write_study(tmp_path, VIEWS[:3])
    (tmp_path / "ml.dcm").write_bytes(mammogram("R ML", 7))
    answer = call("exam", density, tmp_path)
    assert answer.code == 0
    assert "Missing views: R MLO." in answer.out
    assert "left out: view-not-expected" in answer.out
    assert "ml.dcm: left out. [view-not-expected]" in answer.err


def test_a_refused_image_makes_the_exit_code(call: Call, density: Path, tmp_path: Path) -> None:
    write_study(tmp_path, VIEWS[:3])
    (tmp_path / "note.txt").write_text("not an image")
    answer = call("exam", density, tmp_path, "--json")
    assert answer.code == 1
    assert answer.documents[0]["left_out"][0]["code"] == "image.format"
    assert "note.txt: left out. [image.format]" in answer.err


def test_views_of_pictures_are_declared(call: Call, density: Path, tmp_path: Path) -> None:
    first, second = PICTURES[0], PICTURES[1]
    declared = ("--view", f"{first.name}=l-cc", "--view", f"{second}=R MLO")
    answer = call("exam", density, first, second, "--modality", "MG", "--json", *declared)
    assert answer.code == 0
    assert [image["view"] for image in answer.documents[0]["images"]] == ["L CC", "R MLO"]
    assert [notice["code"] for notice in answer.documents[0]["notices"]] == ["study-absent"]
    table = call("exam", density, first, second, "--modality", "MG", *declared)
    assert "declared" in table.out
    assert "Note [study-absent]" in table.out
    undeclared = call("exam", density, first, "--modality", "MG", "--json")
    assert undeclared.code == 1
    assert undeclared.documents[0]["error"]["code"] == "exam.incomplete"


@pytest.mark.parametrize(
    "stated", ["tall.png", "=L-CC", "tall.png=", "other.png=L-CC", "square.png=L-CC|square.png=L-CC"]
)
def test_a_declaration_that_names_no_image_is_wrong_usage(call: Call, density: Path, stated: str) -> None:
    views = [part for each in stated.split("|") for part in ("--view", each)]
    answer = call("exam", density, *PICTURES, "--modality", "MG", *views)
    assert (answer.code, answer.out) == (2, "")
    assert "--view" in answer.err


def test_refusals(call: Call, density: Path, carzero_bundle: Path, tmp_path: Path) -> None:
    paths = write_study(tmp_path / "study")
    answer = call("exam", density, *paths, "--view", f"{paths[0].name}=R-CC")
    assert (answer.code, answer.out) == (1, "")
    assert "[exam.view]" in answer.err
    answer = call("exam", carzero_bundle, *paths)
    assert (answer.code, answer.out) == (1, "")
    assert "[exam.no-rule]" in answer.err
    assert "recipe key `examination`" in answer.err
    paths[3].write_bytes(mammogram("R MLO", 3, StudyInstanceUID="1.2.3.5"))
    answer = call("exam", density, *paths, "--json")
    assert answer.code == 1
    assert answer.documents[0]["error"]["code"] == "exam.mixed"
    complete = with_rule(density, tmp_path, require_all=True)
    assert "[exam.incomplete]" in call("exam", complete, *paths[:3]).err
    assert call("exam", density, *paths[:3], "--strict", "--threads", "1").code == 0


def test_an_empty_folder_is_wrong_usage(call: Call, density: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert call("exam", density, tmp_path / "empty").code == 2
