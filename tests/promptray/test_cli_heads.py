"""The command line on a bundle of two heads, one key of which is in both."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.asg_tiny import IMAGES, TAGS, image_path
from tests.promptray.command_line import Call

SCHEMAS = Path(__file__).parents[2] / "docs"
IMAGE = image_path(IMAGES[0])
FOLDER = IMAGE.parent


def schema(name: str) -> Any:
    return json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "pneumothorax", "stent"])
        for number, name in enumerate(IMAGES):
            writer.writerow([f"{name}.png", number % 2, number // 2])
    return path


def test_scores_stand_head_by_head(call: Call, asg_both_bundle: Path) -> None:
    answer = call("score", asg_both_bundle, IMAGE, "--modality", "DX", "--no-site")
    assert answer.code == 0, answer.err
    of_prompts, of_tags = answer.out.index("Scores of prompts"), answer.out.index("Scores of tags")
    assert of_prompts < of_tags < answer.out.rindex("pneumothorax")
    assert "their sigmoid" in answer.out[of_tags:]
    answer = call("score", asg_both_bundle, IMAGE, "--modality", "DX", "--no-site", "--json")
    (document,) = answer.documents
    jsonschema.validate(document, schema("result"))
    assert {each["head"] for each in document["findings"] if each["key"] == "pneumothorax"} == {
        "prompts",
        "tags",
    }


def test_overlays_of_a_key_of_both_heads(call: Call, asg_both_bundle: Path, tmp_path: Path) -> None:
    common = (
        "score",
        asg_both_bundle,
        IMAGE,
        "--modality",
        "DX",
        "--no-site",
        "--json",
        "--heatmaps",
        tmp_path,
    )
    answer = call(*common, "--finding", "pneumothorax")
    assert answer.code == 1
    assert "[prompt.ambiguous]" in answer.err
    assert "--head" in answer.err
    assert call(*common, "--finding", "pneumothorax", "--head", "tags").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["tall.png.tags.pneumothorax.png"]
    assert call(*common, "--head", "tags").code == 0
    assert len(list(tmp_path.iterdir())) == len(TAGS)  # a key that one head has is enough of a name
    assert (tmp_path / "tall.png.stent.png").is_file()
    answer = call(*common, "--head", "abdomen")
    assert (answer.code, "[score.head]" in answer.err) == (1, True)


def test_inspect_and_verify_show_every_head(call: Call, asg_both_bundle: Path) -> None:
    answer = call("inspect", asg_both_bundle, "--no-site")
    assert answer.code == 0
    for head, kind in (("prompts", "free"), ("tags", "fixed")):
        gates = f"Gates that the fp32 graphs of {head} passed"
        for line in (f"graph head {head}", gates, f"Findings of {head}: {kind} set"):
            assert line in answer.out, line
    answer = call("verify", asg_both_bundle, "--no-site")
    assert answer.code == 0
    assert "golden scores of prompts" in answer.out
    assert "golden scores of tags" in answer.out
    (document,) = call("verify", asg_both_bundle, "--no-site", "--json").documents
    assert [head["head"] for head in document["golden"]["heads"]] == ["prompts", "tags"]


def test_prompts_are_listed_with_their_head(call: Call, asg_both_bundle: Path, site: Path) -> None:
    at_site = ("--site", site)
    prompts = ("prompts", asg_both_bundle)
    (document,) = call(*prompts, "list", "--json", *at_site).documents
    assert [each["head"] for each in document["findings"] if each["key"] == "pneumothorax"] == [
        "prompts",
        "tags",
    ]
    listed = call(*prompts, "list", *at_site).out
    assert listed.index("Findings of prompts (free set)") < listed.index("Findings of tags (fixed set)")

    assert call(*prompts, "remove", "pneumothorax", *at_site).code == 0
    (document,) = call(*prompts, "list", "--json", *at_site).documents
    assert [each["head"] for each in document["findings"] if each["key"] == "pneumothorax"] == ["tags"]
    (inspected,) = call("inspect", asg_both_bundle, *at_site, "--json").documents
    assert inspected["site"]["removed"] == [{"head": "prompts", "key": "pneumothorax"}]
    answer = call(
        *prompts, "remove", "pneumothorax", *at_site
    )  # the tags' is all that is left, and it is fixed
    assert "[prompt.fixed-set]" in answer.err
    assert call(*prompts, "restore", "pneumothorax", *at_site).code == 0
    for arguments in (("remove", "pneumothorax", "--head", "tags"), ("remove", "stent")):
        answer = call(*prompts, *arguments, *at_site)
        assert (answer.code, "[prompt.fixed-set]" in answer.err) == (1, True)
    assert call(*prompts, "add", "stent", "a stent in the chest", *at_site).code == 0
    (document,) = call(*prompts, "list", "--json", *at_site).documents
    assert [each["head"] for each in document["findings"] if each["key"] == "stent"] == ["prompts", "tags"]


@pytest.mark.parametrize("head", ["prompts", "tags"])
def test_evaluate_measures_one_head(
    call: Call, asg_both_bundle: Path, labels: Path, tmp_path: Path, head: str
) -> None:
    common = (
        "evaluate", asg_both_bundle, "--images", FOLDER, "--labels", labels, "--modality", "DX",
        "--min-patients", 1, "--draws", 20, "--no-site", "--json",
    )  # fmt: skip
    answer = call(*common)
    assert answer.code == 1
    assert "[score.head]" in answer.err
    assert "one of prompts, tags" in answer.err
    answer = call(*common, "--head", head, "-o", tmp_path / "report")
    assert answer.code == 0, answer.err
    (document,) = answer.documents
    jsonschema.validate(document, schema("evaluation"))
    assert document["scores"]["head"] == head
    measured = [each["key"] for each in document["groups"][0]["findings"]]
    assert measured == (["pneumothorax"] if head == "prompts" else ["pneumothorax", "stent"])
    rows = (tmp_path / "report" / "scores.csv").read_text(encoding="utf-8").splitlines()
    scored = call("score", asg_both_bundle, FOLDER, "--modality", "DX", "--no-site", "--json").documents
    logits = {
        item["source"]["name"]: each["score"]["logit"]
        for item in scored
        for each in item["findings"]
        if (each["head"], each["key"]) == (head, "pneumothorax")
    }
    found = {
        row.split(",")[0]: float(row.split(",")[2]) for row in rows[1:] if row.split(",")[1] == "pneumothorax"
    }
    assert found == pytest.approx(logits, abs=1e-5)


def test_compare_takes_one_head_of_either_side(
    call: Call, asg_both_bundle: Path, asg_tags_bundle: Path
) -> None:
    common = ("--images", FOLDER, "--modality", "DX", "--no-site", "--draws", 20, "--json")
    assert "[score.head]" in call("compare", asg_both_bundle, asg_both_bundle, *common).err
    answer = call("compare", asg_both_bundle, asg_tags_bundle, *common, "--head", "tags", "--max-delta", 2e-5)
    assert answer.code == 0, answer.err
    (document,) = answer.documents
    jsonschema.validate(document, schema("comparison"))
    assert (document["first"]["head"], document["second"]["head"]) == ("tags", "tags")
    assert len(document["findings"]) == len(TAGS)


def test_compare_takes_another_head_of_the_reference(call: Call, asg_both_bundle: Path) -> None:
    common = ("--images", FOLDER, "--modality", "DX", "--no-site", "--draws", 20, "--json")
    heads = ("--reference-head", "tags", "--head", "prompts")
    answer = call("compare", asg_both_bundle, asg_both_bundle, *common, *heads)
    assert answer.code == 0, answer.err
    (document,) = answer.documents
    assert (document["first"]["head"], document["second"]["head"]) == ("tags", "prompts")


def test_compare_names_the_heads_of_both_sides(
    call: Call, asg_both_bundle: Path, asg_tags_bundle: Path
) -> None:
    common = ("--images", FOLDER, "--modality", "DX", "--no-site", "--json")
    (document,) = call("compare", asg_both_bundle, asg_tags_bundle, *common, "--head", "prompts").documents
    assert document["error"]["code"] == "score.head"
    expected = "of A, the reference: one of prompts, tags; of B: one of tags"
    assert (document["error"]["expected"], document["error"]["found"]) == (expected, "'prompts'")


def test_check_names_the_head_of_a_finding(call: Call, asg_both_bundle: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.txt"
    report.write_text("No pneumothorax.", encoding="utf-8")
    scored = call("score", asg_both_bundle, IMAGE, "--modality", "DX", "--no-site", "--json").documents[0]
    for finding in scored["findings"]:  # only the tags score above the others
        finding["score"]["logit"] -= 1 if finding["head"] == "tags" else 0
    reference = tmp_path / "reference.jsonl"
    reference.write_text("\n".join([json.dumps(scored)] * 20), encoding="utf-8")
    common = ("check", asg_both_bundle, IMAGE, "--report", report, "--reference", reference,
              "--modality", "DX", "--no-site")  # fmt: skip
    answer = call(*common)
    assert answer.code == 0, answer.err
    assert "tags: pneumothorax" in answer.out
    (document,) = call(*common, "--json").documents
    verdicts = {
        each["head"]: each["verdict"] for each in document["findings"] if each["key"] == "pneumothorax"
    }
    assert verdicts == {"prompts": "no disagreement", "tags": "possible miss"}
    (document,) = call(*common, "--json", "--head", "prompts").documents
    assert {each["head"] for each in document["findings"]} == {"prompts"}
    assert "[score.head]" in call(*common, "--head", "abdomen").err


def test_an_export_names_its_head(call: Call, asg_both_bundle: Path, tmp_path: Path) -> None:
    common = ("prompts", asg_both_bundle, "export", "-o", tmp_path / "stent.safetensors", "stent")
    answer = call(*common, "--head", "tags", "--site", tmp_path)
    assert answer.code == 0, answer.err
    assert (tmp_path / "stent.safetensors").stat().st_size > 0
    answer = call(*common, "--site", tmp_path)
    assert answer.code == 1
    assert "prompt.unknown" in answer.err
