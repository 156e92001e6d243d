"""From the results of single images to the result of their examination."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from promptray.runtime.bundle.manifest import Examination, Head, Manifest
from promptray.runtime.errors import ScoringError
from promptray.runtime.exam_pool import Part, pool
from promptray.runtime.exam_result import (
    ExamDocument,
    ExamFinding,
    ExamImage,
    ExamResult,
    ExamScores,
    LeftOutImage,
    RuleRef,
)
from promptray.runtime.exam_rule import in_words, pooled_of, views_of
from promptray.runtime.picture import notice
from promptray.runtime.relation import summary_of_shares
from promptray.runtime.result import FindingScore, NoticeRef, Result
from promptray.runtime.views import View


@dataclass(frozen=True, eq=False)
class Entered:
    """An image that entered and was scored.

    Attributes
    ----------
    number : int
        Its place among the sources, counted from 1.
    view : View
        One of the rule's.
    declared : bool
        Whether the caller had to say something of the view that no tag says.
    result : Result
    """

    number: int
    view: View
    declared: bool
    result: Result


def exam_result(
    manifest: Manifest, rule: Examination, entered: Sequence[Entered], left_out: Sequence[LeftOutImage]
) -> ExamResult:
    """Pool the results of single images.

    Parameters
    ----------
    manifest : Manifest
        Of the bundle that scored them.
    rule : Examination
        Its rule.
    entered : sequence of Entered
        At least one; their order matters to nothing but the order in which they are listed.
    left_out : sequence of LeftOutImage

    Raises
    ------
    ScoringError
        ``exam.findings`` where a finding has no number that can be pooled, or findings were changed between
        two images.
    """
    documents = [each.result.document for each in entered]
    _require_same_findings(entered)
    sides: dict[str, list[_OfHead]] = {}
    whole: list[_OfHead] = []
    for head in manifest.heads:
        findings = [finding for finding in documents[0].findings if finding.head == head.name]
        if not findings:
            continue
        of_sides, of_whole = pool(_values(entered, head, rule), rule, head)
        for side, part in of_sides.items():
            sides.setdefault(side, []).append(_OfHead(head, findings, part))
        if of_whole is not None:
            whole.append(_OfHead(head, findings, of_whole))
    there = {each.view for each in entered}
    document = ExamDocument(
        schema="promptray-examination",
        schema_version=1,
        software=documents[0].software,
        bundle=documents[0].bundle,
        rule=RuleRef(rule=rule, words=in_words(rule, manifest.heads)),
        study_instance_uid=next(filter(None, (each.source.study_instance_uid for each in documents)), None),
        examination=_scores(whole) if whole else None,
        sides={side: _scores(parts) for side, parts in sides.items()},
        missing_views=[view.label for view in views_of(rule) if view not in there],
        images=[
            ExamImage(
                number=each.number, name=each.result.name, view=each.view.label,
                view_declared=each.declared, result=each.result.document,
            )
            for each in entered
        ],
        left_out=list(left_out),
        notices=_notices(entered),
    )  # fmt: skip
    return ExamResult(document, [each.result for each in entered])


@dataclass(frozen=True)
class _OfHead:
    """A head's part of a side or of the examination."""

    head: Head
    findings: list[FindingScore]
    part: Part


def _require_same_findings(entered: Sequence[Entered]) -> None:
    """Prompts may be edited in another thread while the images are being scored."""
    asked = [
        [(each.head, each.key, each.prompts, each.negative_prompts) for each in one.result.document.findings]
        for one in entered
    ]
    if any(findings != asked[0] for findings in asked):
        raise _unpoolable(
            "the findings were changed while the examination was being scored", "score it again"
        )


def _values(entered: Sequence[Entered], head: Head, rule: Examination) -> dict[View, list[dict[str, float]]]:
    """Return what is pooled of every image, by view in the rule's order."""
    of = pooled_of(head)
    values: dict[View, list[dict[str, float]]] = {view: [] for view in views_of(rule)}
    for each in entered:
        scores = {
            finding.key: getattr(finding.score, of)
            for finding in each.result.document.findings
            if finding.head == head.name
        }
        if None in scores.values():
            raise _unpoolable(
                "a single alternative is left, and its share says nothing",
                "restore the findings of the bundle: `promptray prompts BUNDLE restore`",
            )
        values[each.view].append(scores)
    return {view: images for view, images in values.items() if images}


def _unpoolable(message: str, cure: str) -> ScoringError:
    return ScoringError("exam.findings", message, cure=cure)


def _scores(parts: Sequence[_OfHead]) -> ExamScores:
    summaries = (summary_of_shares(each.part.values, each.head) for each in parts)
    return ExamScores(
        findings=[
            ExamFinding(
                key=finding.key, display=finding.display, head=finding.head, code=finding.code,
                of=pooled_of(each.head), value=each.part.values[finding.key],
                views=[view.label for view in each.part.views[finding.key]],
            )
            for each in parts
            for finding in each.findings
        ],
        summaries=[summary for summary in summaries if summary is not None],
    )  # fmt: skip


def _notices(entered: Sequence[Entered]) -> list[NoticeRef]:
    stateless = [each for each in entered if each.result.document.source.study_instance_uid is None]
    codes = ["study-absent"] if stateless and len(entered) > 1 else []
    if len({each.view for each in entered}) < len(entered):
        codes.append("view-repeated")
    return [NoticeRef(**notice(code).to_json()) for code in codes]
