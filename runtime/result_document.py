"""From what the heads say of one image to the document of its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import msgspec

from promptray.runtime.active_set import ActiveSet, HeadAnswer
from promptray.runtime.backends import BackendFacts
from promptray.runtime.bundle import Bundle
from promptray.runtime.picture import Notice
from promptray.runtime.prepared import Prepared
from promptray.runtime.relation import scores_of, summary_of
from promptray.runtime.result import (
    BundleRef,
    FindingScore,
    GateRef,
    NoticeRef,
    ResultDocument,
    Score,
    SourceRef,
    Summary,
)
from promptray.runtime.site_prompts import ActiveFinding
from promptray.runtime.version import VERSION


def result_document(
    bundle: Bundle,
    backend: BackendFacts,
    prepared: Prepared,
    state: ActiveSet,
    answers: Sequence[HeadAnswer],
) -> ResultDocument:
    """Put a result together, without its timing (see :func:`timed`).

    Parameters
    ----------
    bundle : Bundle
    backend : BackendFacts
        What ran.
    prepared : Prepared
        The image.
    state : ActiveSet
        What was scored.
    answers : sequence of HeadAnswer
        Of the heads that have findings, in the manifest's order.
    """
    manifest = bundle.manifest
    findings: list[FindingScore] = []
    summaries: list[Summary | None] = []
    for answer in answers:
        head, keys = answer.of.head, answer.of.bank.keys
        scores = scores_of(answer.logits, keys, head)
        findings += [
            _finding_score(item, state.calibrated(item, score))
            for item, score in zip(answer.of.active, scores, strict=True)
        ]
        summaries.append(summary_of(dict(zip(keys, scores, strict=True)), head))
    notices: list[Notice] = [*prepared.notices, *state.notices]
    return ResultDocument(
        schema="promptray-result",
        schema_version=5,
        software=f"promptray {VERSION}",
        bundle=BundleRef(
            name=manifest.name, family=manifest.family, sha256=bundle.hash,
            site_revision=state.site_revision, model=manifest.model,
        ),
        backend=backend,
        gates=[GateRef(name="golden", passed=True, detail="first golden picture, here, at opening")],
        source=SourceRef(name=prepared.name, **asdict(prepared.source)),
        transform=prepared.geometry.to_json(),
        findings=findings,
        summaries=[summary for summary in summaries if summary is not None],
        notices=[NoticeRef(**item.to_json()) for item in notices],
        timing_ms={},
    )  # fmt: skip


def timed(document: ResultDocument, timing: Mapping[str, float]) -> ResultDocument:
    """Return a document with the milliseconds of each stage: its own making is one of them."""
    return msgspec.structs.replace(document, timing_ms=dict(timing))


def _finding_score(item: ActiveFinding, score: Score) -> FindingScore:
    return FindingScore(
        key=item.finding.key, display=item.finding.display, head=item.finding.head,
        prompts=item.finding.prompts, negative_prompts=item.finding.negative_prompts,
        origin=item.origin, code=item.finding.code, score=score,
    )  # fmt: skip
