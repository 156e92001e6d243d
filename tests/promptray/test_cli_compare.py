"""``promptray compare``: bundles and tables of scores, on real radiographs with the reference model."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from promptray.calibrate.tables.scores import ScoreTable, read_scores, write_scores
from tests.promptray.command_line import Call
from tests.promptray.labelled_samples import NAMES, SAMPLES, write_labels
from tests.promptray.labelled_samples import write_scores as write_made_up_scores

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "comparison.schema.json").read_text(encoding="utf-8")
)
IMAGES = ("--images", SAMPLES, "--modality", "CR")


@pytest.fixture
def reference(call: Call, reference_bundle: Path, tmp_path: Path) -> Path:
    """The reference model's own scores of the samples."""
    folder = tmp_path / "reference"
    answer = call("evaluate", reference_bundle, *IMAGES, "--labels", write_labels(tmp_path), "-o", folder)
    assert answer.code == 0, answer.err
    return folder / "scores.csv"


def changed(path: Path, by: np.ndarray | float, **parts: object) -> Path:
    """Write the scores once more, with something added."""
    table = read_scores(path)
    fields = {"names": table.names, "keys": table.keys, "values": {"logit": table.raw() + by}} | parts
    target = path.with_name("changed.csv")
    target.write_bytes(write_scores(ScoreTable("x", **fields)))  # type: ignore[arg-type]
    return target


def test_a_bundle_agrees_with_its_own_scores(
    call: Call, reference_bundle: Path, reference: Path, tmp_path: Path
) -> None:
    answer = call(
        "compare", reference_bundle, reference, *IMAGES, "--labels", write_labels(tmp_path),
        "--max-delta", 2e-5, "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    (document,) = answer.documents
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert (document["images"], document["patients"]) == (12, 12)
    assert [bound["status"] for bound in document["bounds"]] == ["passed"]
    assert document["first"]["sha256"]
    assert document["second"]["sha256"] is None
    reasons = {finding["key"]: finding["reason"] for finding in document["findings"]}
    assert "fewer than 30" in reasons["pneumonia"]
    assert reasons["no pneumonia"] == "no labels"


def test_twelve_patients_prove_no_rank_correlation_and_no_auroc(
    call: Call, reference: Path, tmp_path: Path
) -> None:
    bounds = ("--min-spearman", 0.99, "--max-auroc-loss", 0.01)
    answer = call("compare", reference, reference, "--labels", write_labels(tmp_path), *bounds, "--json")
    assert answer.code == 1
    assert [bound["status"] for bound in answer.documents[0]["bounds"]] == ["inconclusive"] * 2


def test_a_broken_bound_is_1_and_said(call: Call, reference_bundle: Path, reference: Path) -> None:
    other = changed(reference, np.linspace(0, 1, 12)[:, None])
    answer = call("compare", reference_bundle, other, *IMAGES, "--max-delta", 0.5, "--min-spearman", 0.1)
    assert answer.code == 1
    assert "failed" in answer.out
    assert "max_delta" in answer.out


def test_an_inconclusive_bound_is_1_too(call: Call, reference_bundle: Path, reference: Path) -> None:
    answer = call("compare", reference_bundle, reference, *IMAGES, "--max-flips", 0.01)
    assert answer.code == 1
    assert "inconclusive, which is not passed" in answer.out
    assert call("compare", reference_bundle, reference, *IMAGES).code == 0


def test_two_tables_need_no_images(call: Call, reference: Path) -> None:
    other = changed(reference, 0.25)
    answer = call("compare", reference, other, "--json")
    assert answer.code == 0, answer.err
    assert {finding["max_delta"] for finding in answer.documents[0]["findings"]} == {0.25}
    assert {finding["spearman"]["value"] for finding in answer.documents[0]["findings"]} == {1}


@pytest.mark.parametrize(
    ("sides", "heads", "untaken"),
    [
        ("table table", ("--head", "other"), "--head"),
        ("table table", ("--reference-head", "nonsense"), "--reference-head"),
        ("table bundle", ("--reference-head", "findings"), "--reference-head"),
        ("bundle table", ("--reference-head", "findings", "--head", "findings"), "--head"),
    ],
)
def test_a_head_that_no_bundle_takes_is_refused(
    call: Call, bundle: Path, tmp_path: Path, sides: str, heads: tuple[str, ...], untaken: str
) -> None:
    given = {"table": write_made_up_scores(tmp_path), "bundle": bundle}
    answer = call("compare", *(given[side] for side in sides.split()), *IMAGES, *heads, "--json")
    assert (answer.code, len(answer.documents)) == (1, 1), answer.err
    error = answer.documents[0]["error"]
    assert error["code"] == "score.head"
    assert error["message"] == f"{untaken} is given, but no bundle takes it"
    assert "a table, which has none" in error["expected"]
    assert error["cure"].startswith(f"leave {untaken} out")


def test_the_head_of_a_table_is_that_of_the_bundle_beside_it(
    call: Call, reference_bundle: Path, reference: Path
) -> None:
    (document,) = call("compare", reference_bundle, reference, *IMAGES, "--json").documents
    name = document["first"]["head"]
    for sides in ((reference_bundle, reference), (reference, reference_bundle)):
        answer = call("compare", *sides, *IMAGES, "--head", name, "--json")
        assert answer.code == 0, answer.err
        found = answer.documents[0]
        assert {found["first"]["head"], found["second"]["head"]} == {name, None}


def test_findings_and_images_of_one_side_are_listed(
    call: Call, reference_bundle: Path, tmp_path: Path
) -> None:
    scores = write_made_up_scores(tmp_path)
    scores.write_text("\n".join([*scores.read_text().splitlines()[:6], f"{NAMES[0]},gout,1"]))
    answer = call("compare", reference_bundle, scores, *IMAGES)
    assert answer.code == 0, answer.err
    assert "Findings of B only: gout." in answer.out
    assert "Findings of A only: bacterial pneumonia, viral pneumonia, no pneumonia." in answer.out
    labelled = call("compare", reference_bundle, scores, *IMAGES, "--labels", write_labels(tmp_path))
    assert "Images with scores of A only: 7." in labelled.out


def test_two_bundles_are_scored_on_every_file_of_the_folder(
    call: Call, reference_bundle: Path, carzero_bundle: Path, tmp_path: Path
) -> None:
    for name in NAMES[:3]:
        (tmp_path / name).write_bytes((SAMPLES / name).read_bytes())
    (tmp_path / "note.txt").write_text("no picture")
    answer = call(
        "compare", reference_bundle, reference_bundle, "--images", tmp_path, "--modality", "CR", "--json"
    )
    assert answer.code == 1
    (document,) = answer.documents
    assert document["images"] == 3
    place = sorted(path.name for path in tmp_path.iterdir()).index("note.txt") + 1
    refused = [{"image": f"file {place}", "code": "image.format"}]
    assert (document["first"]["refused"], document["second"]["refused"]) == (refused, refused)
    assert max(finding["max_delta"] for finding in document["findings"]) == 0
    other = call(
        "compare", reference_bundle, carzero_bundle, "--images", tmp_path, "--modality", "CR", "--json"
    )
    assert other.documents[0]["error"]["code"] == "table.disjoint"


def test_an_image_that_the_folder_lacks_has_no_score(
    call: Call, reference_bundle: Path, tmp_path: Path
) -> None:
    scores = write_made_up_scores(tmp_path)
    scores.write_text(scores.read_text() + "\nabsent.png,pneumonia,1")
    answer = call("compare", reference_bundle, scores, *IMAGES, "--json")
    assert answer.code == 1
    place = f"file {len(NAMES) + 1}"
    assert answer.documents[0]["first"]["refused"] == [{"image": place, "code": "image.not-found"}]
    assert answer.documents[0]["second"]["images_only_here"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (*IMAGES, "--max-auroc-loss", 0.1),
        (*IMAGES, "--max-flips", 2),
        (*IMAGES, "--reference-rate", 0),
        (*IMAGES, "--max-delta", -1),
    ],
)
def test_wrong_usage_is_2(call: Call, reference_bundle: Path, arguments: tuple[object, ...]) -> None:
    answer = call("compare", reference_bundle, reference_bundle, *arguments)
    assert (answer.code, answer.out) == (2, "")


def test_a_side_that_is_not_there_is_refused(call: Call, reference_bundle: Path, tmp_path: Path) -> None:
    answer = call("compare", reference_bundle, tmp_path / "absent", *IMAGES)
    assert answer.code == 1
    assert "[bundle.not-found]" in answer.err
