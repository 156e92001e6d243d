"""A report beside the scores of its image: where the two disagree.

A raw score ranks images; alone it says neither yes nor no. So a finding gets a side only by a decision
threshold that its bundle or site holds, or by its rank among reference scores that the user brings. Without
either it is not compared.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from promptray.calibrate.reports.clause import Existence
from promptray.calibrate.reports.lexicon import lexicon, named_findings
from promptray.calibrate.reports.triplets import Triplet, extract, summarise
from promptray.calibrate.tables.text_lines import read_lines
from promptray.runtime.errors import PromptRayError
from promptray.runtime.packs import pack_names, read_pack
from promptray.runtime.result import FindingScore

Stated = Literal["present", "absent", "uncertain", "not mentioned", "not in the lexicon"]
Side = Literal["high", "low", "between"]
Verdict = Literal["possible miss", "not confirmed", "no disagreement", "not compared"]
_SAYING = re.compile(r"^\s*There (?:is|are)\s+", re.IGNORECASE)
#: Scores of other images by head, key and wordings: another prompt of that key is another finding.
Reference = Mapping[tuple[str, ...], Sequence[float]]


@dataclass(frozen=True)
class Comparison:
    """One finding of the bundle.

    Attributes
    ----------
    head, key, display : str
    stated : str
        What the report says of it.
    terms, regions : list of str
        Phrases of OUR lexicon that matched, and OUR names of the places; no other words of the report.
    logit : float
    side : {"high", "low", "between"} or None
        None where nothing gives the score a side.
    by : {"threshold", "reference"} or None
    rank, of : int or None
        By reference: the score is above `rank` of `of` reference images.
    verdict : str
        ``possible miss``: high, and the report denies it or is silent. ``not confirmed``: the report has it
        and the score is low.
    """

    head: str
    key: str
    display: str
    stated: Stated
    terms: list[str]
    regions: list[str]
    logit: float
    side: Side | None
    by: Literal["threshold", "reference"] | None
    rank: int | None
    of: int | None
    verdict: Verdict


def compare(
    triplets: Sequence[Triplet], findings: Sequence[FindingScore], reference: Reference, *, above: float
) -> list[Comparison]:
    """Compare what a report says with the scores of its image, finding by finding, in the bundle's order.

    Parameters
    ----------
    triplets : sequence of Triplet
        Of the report.
    findings : sequence of FindingScore
        Of the result document.
    reference : Reference
        Scores of other images; may be empty.
    above : float
        A score above this share of the reference is high; one above at most the rest is low. 0.5 < above < 1.
    """
    said = summarise(triplets)
    return [
        _compared(finding, triplets, said, reference.get(_identity(msgspec.to_builtins(finding)), ()), above)
        for finding in findings
    ]


def read_reference(path: Path, bundle_hash: str, *, above: float) -> Reference:
    """Read scores of other images: the lines that ``promptray score --json`` wrote, of the same bundle.

    Refused images in the file are passed over. A share such as 0.95 needs at least 20 images to be met at
    all.

    Raises
    ------
    PromptRayError
        ``report.reference`` when it is no such file, of another bundle, or too small.
    """
    scores: dict[tuple[str, ...], list[float]] = {}
    images = 0
    try:
        for line in read_lines(path):
            document = json.loads(line)
            if document["schema"] == "promptray-refusal":
                continue
            if document["bundle"]["sha256"] != bundle_hash:
                raise _bad_reference(path, "scores of another bundle", bundle_hash[:12], "another hash")
            images += 1
            for finding in document["findings"]:
                logit = float(finding["score"]["logit"])
                if not math.isfinite(logit):
                    raise ValueError("not finite")
                scores.setdefault(_identity(finding), []).append(logit)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        found = type(error).__name__
        raise _bad_reference(path, "no file of scores", "lines of `promptray score --json`", found) from None
    needed = math.ceil(1 / (1 - above) - 1e-9)
    if images < needed:
        raise _bad_reference(path, "too few scores for this share", f"at least {needed} images", str(images))
    return scores


def _identity(finding: Mapping[str, Any]) -> tuple[str, ...]:
    named = str(finding["head"]), str(finding["key"])
    return (*named, *finding["prompts"], "not:", *finding["negative_prompts"])


def read_report(path: Path) -> list[Triplet]:
    """Return the triplets of a report in a UTF-8 text file.

    Raises
    ------
    PromptRayError
        ``report.invalid`` when it cannot be read, is no text, or says nothing that the lexicon knows: then
        silence about a finding would mean nothing.
    """
    try:
        triplets = extract(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise _bad_report(path, "the report cannot be read as text", type(error).__name__) from None
    if not triplets:
        raise _bad_report(path, "nothing in the report is known to the lexicon", "no statement")
    return triplets


def _compared(
    finding: FindingScore,
    triplets: Sequence[Triplet],
    said: Mapping[str, Existence],
    reference: Sequence[float],
    above: float,
) -> Comparison:
    key = lexicon_key(finding)
    own = [each for each in triplets if key in summarise([each])]
    stated: Stated = "not in the lexicon" if key is None else said.get(key, "not mentioned")
    rank = sum(score < finding.score.logit for score in reference) if reference else None
    side, by = _side(finding.score.flag, rank, len(reference), above)
    return Comparison(
        head=finding.head,
        key=finding.key,
        display=finding.display,
        stated=stated,
        terms=list(dict.fromkeys(each.term for each in own)),
        regions=list(dict.fromkeys(each.region for each in own if each.region)),
        logit=finding.score.logit,
        side=side,
        by=by,
        rank=rank,
        of=len(reference) or None,
        verdict=_verdict(stated, side),
    )


def _side(
    flag: bool | None, rank: int | None, of: int, above: float
) -> tuple[Side | None, Literal["threshold", "reference"] | None]:
    if flag is not None:
        return ("high" if flag else "low"), "threshold"
    if rank is None:
        return None, None
    if rank >= above * of:
        return "high", "reference"
    return ("low" if rank <= (1 - above) * of else "between"), "reference"


def _verdict(stated: Stated, side: Side | None) -> Verdict:
    if side is None or stated == "not in the lexicon":
        return "not compared"
    if side == "high" and stated in ("absent", "not mentioned"):
        return "possible miss"
    if side == "low" and stated == "present":
        return "not confirmed"
    return "no disagreement"


def lexicon_key(finding: FindingScore) -> str | None:
    """Return the lexicon's key of a bundle's finding, or None.

    By its key, else by its code where a prompt pack has the same code under a key of the lexicon, else by
    its own wordings: apart from "There is" they must be a phrase of one finding and nothing more. A wording
    that says more ("basal", "of the breast") is another finding, and the general one would mislead.
    """
    known = lexicon().findings
    if finding.key in known:
        return finding.key
    if finding.code is not None and (finding.code.scheme, finding.code.value) in _keys_by_code():
        return _keys_by_code()[finding.code.scheme, finding.code.value]
    named = {key for prompt in finding.prompts for key in named_findings(_SAYING.sub("", prompt))}
    specific = named - {parent for key in named for parent in known[key].parents}
    return specific.pop() if len(specific) == 1 else None


@cache
def _keys_by_code() -> dict[tuple[str, str], str]:
    return {
        (finding.code.scheme, finding.code.value): finding.key
        for name in pack_names()
        for finding in read_pack(name).findings
        if finding.code is not None and finding.key in lexicon().findings
    }


def _bad_reference(path: Path, what: str, expected: str, found: str) -> PromptRayError:
    return PromptRayError(
        "report.reference",
        f"this cannot be a reference: {what}",
        artefact=path.name,
        expected=expected,
        found=found,
        cure="score images with this bundle: `promptray score BUNDLE FOLDER --json > reference.jsonl`",
    )


def _bad_report(path: Path, what: str, found: str) -> PromptRayError:
    return PromptRayError(
        "report.invalid", what, artefact=path.name,
        expected="the text of one report in English, UTF-8, at most 200,000 characters", found=found,
        cure="give the findings and impression of the report as a text file",
    )  # fmt: skip


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as plain containers."""
    return dict(vars(comparison))
