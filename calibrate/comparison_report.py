"""The report of ``promptray compare``: a versioned JSON document; the schema is these classes."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from promptray.calibrate.evaluation_report import Estimate, RefusedImage
from promptray.runtime.json_schema import schema_of

Status = Literal["passed", "failed", "inconclusive"]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the report's structures: immutable, keyword-only, closed."""


class Flips(_Struct, frozen=True):
    """How many images change sides of a threshold."""

    flips: int
    decisions: int
    patients: int
    """Sample size of the interval: what the images are worth as independent decisions."""
    rate: float
    low: float
    high: float
    threshold: float | None
    """Used on both sides: stored with the first, or one of its scores; None where each had its own stored."""
    chosen: Literal["stored", "reference operating point"]


class AurocPair(_Struct, frozen=True):
    """AUROC of both sides on the same images, and how much the second loses, over the same draws."""

    first: float
    second: float
    loss: Estimate


class FindingComparison(_Struct, frozen=True):
    """One finding that both sides score."""

    key: str
    images: int
    patients: int
    spearman: Estimate | None
    """None where a side gives every image the same score."""
    max_delta: float
    mean_delta: float
    """Mean of the absolute differences."""
    flips: Flips
    labelled: bool
    """Whether the labels have a column of it."""
    auroc: AurocPair | None
    reason: str | None
    """Why there is no AUROC."""


class SideRef(_Struct, frozen=True):
    """One side: a bundle that was run, or a table."""

    name: str
    sha256: str | None
    """Of the bundle; None for a table."""
    head: str | None
    """The head of the bundle that was compared."""
    images: int
    refused: list[RefusedImage]
    only_here: list[str]
    """Findings that the other side does not score."""
    images_only_here: int
    """Images with scores that have none on the other side."""


class Bound(_Struct, frozen=True):
    """A bound that was stated, and whether it holds. Passed only where the whole interval is inside."""

    name: str
    bound: float
    status: Status
    value: float | None
    low: float | None
    high: float | None
    finding: str | None
    """The worst finding; None for a mean over findings."""


class ComparisonReport(_Struct, frozen=True):
    """All of the JSON document. It holds no patient ids."""

    schema: Literal["promptray-comparison"]
    schema_version: Literal[1]
    software: str
    first: SideRef
    second: SideRef
    images: int
    patients: int
    clustered_by: Literal["patient_id", "image"]
    draws: int
    seed: int
    confidence: float
    reference_rate: float
    """The reference operating point: the first side's score that this share of the images reaches."""
    findings: list[FindingComparison]
    mean_auroc_loss: Estimate | None
    bounds: list[Bound]

    @property
    def passed(self) -> bool:
        """Whether every stated bound holds."""
        return all(bound.status == "passed" for bound in self.bounds)


def comparison_schema() -> dict[str, Any]:
    """Return the JSON Schema of the report."""
    return schema_of(ComparisonReport)
