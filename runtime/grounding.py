"""A region of one image against every finding that has a map, as a document."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

from msgspec import Struct

from promptray.runtime.bundle.manifest import Manifest, MapFacts
from promptray.runtime.errors import ScoringError
from promptray.runtime.json_schema import schema_of
from promptray.runtime.region import Extent
from promptray.runtime.result import BundleRef, NoticeRef, Result, SourceRef


class GroundedFinding(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the region says of one finding."""

    key: str
    """Unique within its head."""
    head: str
    prompts: list[str]
    value: float
    """Its map, pooled over the region: comparable with other regions and images, no probability."""


class GroundedHead(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the values of a head's findings are."""

    name: str
    kind: Literal["attention", "similarity", "class-activation"]
    meaning: str


class GroundingDocument(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON document of one region of one image."""

    schema: Literal["promptray-grounding"]
    schema_version: Literal[1]
    software: str
    bundle: BundleRef
    source: SourceRef
    rows: tuple[float, float]
    """First and last edge of the region on the original image, in pixels."""
    columns: tuple[float, float]
    seen: float
    """Share of the region that the network saw, above 0 and at most 1."""
    heads: list[GroundedHead]
    findings: list[GroundedFinding]
    notices: list[NoticeRef]


def grounding_schema() -> dict[str, Any]:
    """Return the JSON Schema of the grounding document."""
    return schema_of(GroundingDocument)


def ground(
    result: Result, manifest: Manifest, *, rows: Extent, columns: Extent, heads: Collection[str] | None = None
) -> GroundingDocument:
    """Ask a region of a scored image about every finding.

    Parameters
    ----------
    result : Result
        Of the image.
    manifest : Manifest
        Of the bundle that scored it.
    rows, columns : (float, float)
        As for :meth:`Result.region`.
    heads : collection of str, optional
        Only these; by default every one that has a map.

    Raises
    ------
    ScoringError
        ``score.map-unavailable`` when no head has a map; ``score.region`` for a box that
        cannot be asked about.
    """
    maps = {
        head.name: head.map
        for head in manifest.heads
        if head.map is not None and (heads is None or head.name in heads)
    }
    document = result.document
    asked = [each for each in document.findings if each.head in maps]
    if not asked:
        raise ScoringError("score.map-unavailable", "no finding that was asked for has an explanation map")
    regions = [result.region((each.head, each.key), rows=rows, columns=columns) for each in asked]
    return GroundingDocument(
        schema="promptray-grounding",
        schema_version=1,
        software=document.software,
        bundle=document.bundle,
        source=document.source,
        rows=rows,
        columns=columns,
        seen=regions[0].seen,
        heads=[_grounded(name, facts) for name, facts in maps.items()],
        findings=[
            GroundedFinding(key=each.key, head=each.head, prompts=each.prompts, value=region.value)
            for each, region in zip(asked, regions, strict=True)
        ],
        notices=document.notices,
    )


def _grounded(name: str, facts: MapFacts) -> GroundedHead:
    return GroundedHead(name=name, kind=facts.kind, meaning=facts.meaning)
