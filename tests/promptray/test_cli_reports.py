"""`promptray packs`, `align` and `check`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from promptray.runtime.packs import pack_names
from tests.promptray.command_line import Call


def test_packs_are_listed_and_shown(call: Call) -> None:
    answer = call("packs")
    assert answer.code == 0
    assert all(name in answer.out for name in pack_names())
    (document,) = call("packs", "--json").documents
    assert {"name": "chestxray14", "title": "ChestX-ray14, 14 findings", "findings": 14} in document["packs"]
    shown = call("packs", "chexpert5")
    assert "There is Pulmonary Edema" in shown.out
    assert "Licence: " in shown.out
    (document,) = call("packs", "chexpert5", "--json").documents
    assert document["findings"][0]["code"]["value"] == "46621007"
    refused = call("packs", "chexpert6")
    assert (refused.code, refused.out) == (1, "")
    assert "[prompt.unknown-pack]" in refused.err


def test_a_pack_is_added_at_a_site(call: Call, bundle: Path, site: Path) -> None:
    assert (
        call("prompts", bundle, "add", "--pack", "chexpert5", "--site", site).code == 1
    )  # atelectasis is taken
    assert call("prompts", bundle, "remove", "atelectasis", "--site", site).code == 0
    answer = call("prompts", bundle, "add", "--pack", "chexpert5", "--site", site)
    assert (answer.code, answer.out) == (0, "Added the 5 findings of chexpert5\n")
    (document,) = call("prompts", bundle, "list", "--site", site, "--json").documents
    assert [each["key"] for each in document["findings"]][-2:] == ["pulmonary edema", "pleural effusion"]


@pytest.mark.parametrize(
    "arguments", [(), ("edema", "--pack", "chexpert5"), ("--pack", "chexpert5", "--display", "x")]
)
def test_a_key_or_a_pack_is_needed(call: Call, bundle: Path, site: Path, arguments: tuple[str, ...]) -> None:
    assert call("prompts", bundle, "add", *arguments, "--site", site).code == 2


def test_wordings_are_aligned(call: Call) -> None:
    answer = call("align", "mild cardiomegaly without effusion", "possible edema")
    assert answer.code == 0
    assert answer.out.splitlines() == [
        "- mild cardiomegaly without effusion",
        "+ There is cardiomegaly    (by the lexicon)",
        "+ There is no pleural effusion    (denied; a negative prompt did not help the published model)",
        "- possible edema",
        "+ There is pulmonary edema    (said with doubt; the form has none)",
    ]
    (document,) = call("align", "scoliosis", "--json").documents
    assert document == {
        "proposals": [
            {
                "wording": "scoliosis",
                "aligned": [
                    {
                        "sentence": "There is scoliosis",
                        "finding": "scoliosis",
                        "existence": "present",
                        "by": "triplet",
                    }
                ],
            }
        ]
    }


def test_what_cannot_be_aligned_or_asked_is_refused(call: Call, tmp_path: Path) -> None:
    assert "[prompt.form]" in call("align", "?").err
    assert call("align", "edema", "--endpoint", "https://example.org/v1").code == 2
    log = tmp_path / "log.jsonl"
    answer = call("align", "edema", "--endpoint", "http://example.org", "--model", "m", "--log", log)
    assert answer.code == 1
    assert "[prompt.endpoint]" in answer.err
    assert not log.exists()


@pytest.fixture
def reference(call: Call, bundle: Path, image: Path, tmp_path: Path) -> Path:
    """Twenty reference images: the scored one, each time a little lower."""
    (document,) = call("score", bundle, image, "--modality", "DX", "--no-site", "--json").documents
    lines = []
    for _ in range(20):
        for finding in document["findings"]:
            finding["score"]["logit"] -= 0.01
        lines.append(json.dumps(document))
    path = tmp_path / "reference.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_report_is_checked(call: Call, bundle: Path, image: Path, reference: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.txt"
    report.write_text(
        "Findings: Jane Doe has no pleural effusion. Left basilar atelectasis.", encoding="utf-8"
    )
    arguments = (
        "check",
        bundle,
        image,
        "--report",
        report,
        "--reference",
        reference,
        "--modality",
        "DX",
        "--no-site",
    )
    answer = call(*arguments, "--json")
    assert answer.code == 0
    (document,) = answer.documents
    assert (document["schema"], document["schema_version"]) == ("promptray-check", 1)
    by_key = {each["key"]: each for each in document["findings"]}
    effusion, atelectasis = by_key["effusion"], by_key["atelectasis"]
    assert (effusion["stated"], effusion["side"], effusion["rank"], effusion["of"]) == (
        "absent",
        "high",
        20,
        20,
    )
    assert effusion["verdict"] == "possible miss"
    assert (atelectasis["stated"], atelectasis["verdict"]) == ("present", "no disagreement")
    assert atelectasis["regions"] == ["left lung base"]
    assert by_key["two sentences"]["stated"] == "not in the lexicon"

    table = call(*arguments)
    assert "possible miss" in table.out
    assert "above 20 of 20" in table.out
    assert "Jane" not in answer.out + answer.err + table.out + table.err


def test_without_a_reference_it_says_that_scores_have_no_side(
    call: Call, bundle: Path, image: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.txt"
    report.write_text("No effusion.", encoding="utf-8")
    answer = call("check", bundle, image, "--report", report, "--modality", "DX", "--no-site")
    assert (answer.code, answer.out) == (0, "")
    assert "No finding could be compared" in answer.err


def test_a_report_or_reference_that_cannot_be_used_is_refused(
    call: Call, bundle: Path, image: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    (tmp_path / "report.txt").write_text("No effusion.", encoding="utf-8")
    common = ("check", bundle, image, "--modality", "DX", "--no-site", "--report")
    assert "[report.invalid]" in call(*common, tmp_path / "empty.txt").err
    answer = call(*common, tmp_path / "report.txt", "--reference", tmp_path / "empty.txt")
    assert answer.code == 1
    assert "[report.reference]" in answer.err
