"""The report of the gates: a versioned JSON document; the schema is these classes."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from promptray.calibrate.comparison_report import AurocPair, Flips
from promptray.calibrate.evaluation_report import Estimate
from promptray.calibrate.gates.verdict import Sense, Verdict
from promptray.runtime.json_schema import schema_of

GateName = Literal[
    "auroc_loss",
    "class_auroc_loss",
    "flips",
    "finding_flips",
    "spearman",
    "mean_delta",
    "max_delta",
    "batch_delta",
    "map_correlation",
    "map_overlap",
]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the report's structures: immutable, keyword-only, closed."""


class ModelRef(_Struct, frozen=True):
    """One of the two models."""

    name: str
    sha256: str | None


class Gate(_Struct, frozen=True):
    """One gate. Passed only where the whole interval is inside the bound."""

    name: GateName
    verdict: Verdict
    value: float | None
    """None where it could not be measured."""
    low: float | None
    """None, as `high`, where there is no interval: a largest difference is that of these images."""
    high: float | None
    bound: float
    sense: Sense
    noise_floor: float | None
    """The same number between two builds or shapes of the original; None where there was only one."""
    finding: str | None
    """The worst finding; None for a number over all of them."""
    images: int
    patients: int
    """Patients of these images; of a share of decisions, what they are worth as independent decisions."""
    decisions: int
    """Scores, or pairs of maps, that were looked at."""
    patients_needed: int | None
    """Of an inconclusive gate: how many patients would settle it, everything else staying."""
    reason: str | None


class NotRun(_Struct, frozen=True):
    """A gate that was not held, for all findings or for one, and why."""

    name: GateName
    finding: str | None
    reason: str


class FindingAgreement(_Struct, frozen=True):
    """Everything measured of one finding."""

    key: str
    spread: float
    """Standard deviation of the original's logits over the images, the unit of the gates on differences."""
    max_delta: float
    """Largest absolute difference of a logit."""
    mean_delta: float
    bias: float
    """Mean of candidate less original."""
    spearman: Estimate | None
    flips: Flips
    positives: int | None
    """Images whose label says present; None without labels."""
    negatives: int | None
    auroc: AurocPair | None
    map_correlation: Estimate | None
    map_overlap: Estimate | None


class Disagreement(_Struct, frozen=True):
    """An image that the two models disagree on, by its number and hash."""

    image: int
    sha256: str | None
    finding: str
    original: float
    candidate: float
    map_correlation: float | None


class GateReport(_Struct, frozen=True):
    """All of the JSON document. It holds no patient ids and no names of images.

    `disagreements` point to single images. :func:`sealed` is the report without them.
    """

    schema: Literal["promptray-gates"]
    schema_version: Literal[1]
    software: str
    verdict: Verdict
    """The worst of the gates'; inconclusive if no gate was held."""
    original: ModelRef
    candidate: ModelRef
    noise_model: ModelRef | None
    """The original built or called in another way."""
    images: int
    patients: int
    clustered_by: Literal["patient", "image"]
    labelled: bool
    draws: int
    seed: int
    confidence: float
    """Of the intervals; each end alone is a limit of (1 + confidence) / 2."""
    reference_rate: float
    gates: list[Gate]
    not_run: list[NotRun]
    findings: list[FindingAgreement]
    disagreements: list[Disagreement]
    """The largest differences in spreads, one for each image."""
    notes: list[str]


def sealed(report: GateReport) -> GateReport:
    """Return the report as it may leave the house with a bundle.

    A number is a row of a hospital's table; a hash, or a score to the last digit, finds the image in an
    archive of its pictures. So nothing that is about one image is left.
    """
    note = "What is about single images, the largest disagreements among it, is not in this report."
    return msgspec.structs.replace(report, disagreements=[], notes=[*report.notes, note])


def gates_schema() -> dict[str, Any]:
    """Return the JSON Schema of the report."""
    return schema_of(GateReport)
