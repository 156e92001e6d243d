"""Report against scores: a score has a side only by threshold or rank."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from promptray.calibrate.reports import extract
from promptray.calibrate.reports.compare import Comparison, compare, lexicon_key, read_reference, read_report
from promptray.runtime.bundle.manifest import Code
from promptray.runtime.errors import PromptRayError
from promptray.runtime.result import FindingScore, Score

HASH = "ab" * 32


def finding(
    key: str, logit: float, *prompts: str, flag: bool | None = None, code: Code | None = None
) -> FindingScore:
    return FindingScore(
        key=key,
        display=key,
        head="h",
        prompts=list(prompts) or [f"There is {key}."],
        negative_prompts=[],
        origin="bundle",
        code=code,
        score=Score(logit=logit, flag=flag),
    )


def reference_of(key: str, *logits: float) -> dict[tuple[str, ...], list[float]]:
    return {("h", key, f"There is {key}.", "not:"): list(logits)}


def one(report: str, score: FindingScore, reference: Any = None, above: float = 0.95) -> Comparison:
    (compared,) = compare(extract(report), [score], reference or {}, above=above)
    return compared


@pytest.mark.parametrize(
    ("report", "flag", "verdict"),
    [
        ("No edema.", True, "no disagreement"),
        ("No pneumothorax.", True, "possible miss"),
        ("Small pneumothorax.", True, "no disagreement"),
        ("Possible pneumothorax.", True, "no disagreement"),
        ("Small pneumothorax.", False, "not confirmed"),
        ("Possible pneumothorax.", False, "no disagreement"),
        ("No pneumothorax.", False, "no disagreement"),
    ],
)
def test_by_threshold(report: str, flag: bool, verdict: str) -> None:
    score = finding("pneumothorax", 1.0, flag=flag)
    expected = (
        "possible miss" if report == "No edema." else verdict
    )  # silence with a high score is a miss, too
    compared = one(report, score)
    assert (compared.verdict, compared.by, compared.rank) == (expected, "threshold", None)


def test_by_rank_among_reference_scores() -> None:
    reference = reference_of("pneumothorax", *range(20))
    ranks = {}
    for logit in (-1.0, 0.5, 1.5, 18.5, 19.5):
        compared = one("No pneumothorax.", finding("pneumothorax", logit), reference)
        ranks[logit] = (compared.rank, compared.of, compared.side, compared.verdict)
    assert ranks == {
        -1.0: (0, 20, "low", "no disagreement"),
        0.5: (1, 20, "low", "no disagreement"),
        1.5: (2, 20, "between", "no disagreement"),
        18.5: (19, 20, "high", "possible miss"),
        19.5: (20, 20, "high", "possible miss"),
    }


def test_without_threshold_or_reference_nothing_is_compared() -> None:
    compared = one("No pneumothorax.", finding("pneumothorax", 99.0))
    assert (compared.verdict, compared.side, compared.by) == ("not compared", None, None)
    assert compared.stated == "absent"


def test_a_reference_for_other_wordings_of_the_key_is_not_used() -> None:
    score = finding("pneumothorax", 99.0, "There is air in the pleural space.")
    assert one("No pneumothorax.", score, reference_of("pneumothorax", *range(20))).verdict == "not compared"


def test_a_reference_for_another_head_is_not_used() -> None:
    (named,) = reference_of("pneumothorax", *range(20)).items()
    other = {("tags", *named[0][1:]): named[1]}
    assert one("No pneumothorax.", finding("pneumothorax", 99.0), other).verdict == "not compared"


def test_a_finding_outside_the_lexicon_is_not_compared() -> None:
    compared = one("No edema.", finding("frobnication", 9.0, flag=True))
    assert (compared.stated, compared.verdict) == ("not in the lexicon", "not compared")


def test_only_our_terms_and_regions_are_given() -> None:
    compared = one(
        "Jane Doe has a tiny left apical pneumothorax, 3 mm.", finding("pneumothorax", 0.0, flag=False)
    )
    assert (compared.terms, compared.regions) == (["pneumothorax"], ["left lung apex"])


@pytest.mark.parametrize(
    ("score", "key"),
    [
        (finding("cardiomegaly", 0.0), "cardiomegaly"),
        (
            finding("x", 0.0, "words", code=Code(value="60046008", scheme="SCT", meaning="m")),
            "pleural effusion",
        ),
        (finding("effusion", 0.0, "There is Pleural Effusion."), "pleural effusion"),
        (finding("ptx", 0.0, "There is Hydropneumothorax"), "hydropneumothorax"),
        (finding("two", 0.0, "There is edema. There is scoliosis."), None),
        (finding("none", 0.0, "There is no pneumothorax."), None),
        (finding("more", 0.0, "There is mild edema."), None),
        (finding("basal atelectasis", 0.0, "There is Basal Atelectasis"), None),
        (finding("unknown", 0.0, "There is lung hepatization."), None),
    ],
)
def test_a_bundles_finding_is_found_by_key_code_or_wording(score: FindingScore, key: str | None) -> None:
    assert lexicon_key(score) == key


def line(logit: Any, bundle: str = HASH) -> dict[str, Any]:
    one_finding = {
        "head": "h",
        "key": "edema",
        "prompts": ["There is edema."],
        "negative_prompts": [],
        "score": {"logit": logit},
    }
    return {"schema": "promptray-result", "bundle": {"sha256": bundle}, "findings": [one_finding]}


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    return path


def test_reference_scores_are_read_and_refused_images_passed_over(tmp_path: Path) -> None:
    lines = [line(n) for n in range(20)] + [{"schema": "promptray-refusal", "error": {}}]
    found = read_reference(write(tmp_path / "r.jsonl", lines), HASH, above=0.95)
    assert found == {("h", "edema", "There is edema.", "not:"): [float(n) for n in range(20)]}


def test_a_text_in_a_reference_may_hold_what_only_looks_like_the_end_of_a_line(tmp_path: Path) -> None:
    lines = [line(n) | {"file": "a\u2028b\x85c.png"} for n in range(20)]
    path = tmp_path / "r.jsonl"  # as a program writes them that does not escape what JSON need not escape
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in lines), encoding="utf-8")
    assert [len(logits) for logits in read_reference(path, HASH, above=0.95).values()] == [20]


BAD_REFERENCES: dict[str, tuple[list[Any], str]] = {
    "too few": ([line(n) for n in range(19)], "too few"),
    "another bundle": ([line(1, "cd" * 32)] * 20, "another bundle"),
    "no number": ([line("high")] * 20, "no file of scores"),
    "not finite": ([line(float("nan"))] * 20, "no file of scores"),
    "no result": ([{"a": 1}], "no file of scores"),
    "a list": ([[1]], "no file of scores"),
    "empty": ([], "too few"),
}


@pytest.mark.parametrize("case", BAD_REFERENCES)
def test_what_is_no_reference_is_refused(tmp_path: Path, case: str) -> None:
    lines, message = BAD_REFERENCES[case]
    with pytest.raises(PromptRayError, match=message) as caught:
        read_reference(write(tmp_path / "r.jsonl", lines), HASH, above=0.95)
    assert caught.value.code == "report.reference"


@pytest.mark.parametrize("content", [b"", b"Dear Jane Doe", b"\xff\xfe\x00", b"x" * 200_001])
def test_what_is_no_report_is_refused_without_its_words(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.txt").write_bytes(content)
    with pytest.raises(PromptRayError) as caught:
        read_report(tmp_path / "r.txt")
    assert caught.value.code == "report.invalid"
    assert "Jane" not in str(caught.value)
    with pytest.raises(PromptRayError, match="cannot be read"):
        read_report(tmp_path / "absent.txt")
