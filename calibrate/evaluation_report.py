"""The report of ``promptray evaluate``: a versioned JSON document; the schema is these classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.bootstrap import percentile_interval
from promptray.calibrate.class_frequency import Part
from promptray.calibrate.pointing_game import PointingReport
from promptray.calibrate.tables.labels import Uncertain
from promptray.runtime.backends import BackendFacts
from promptray.runtime.json_schema import schema_of
from promptray.runtime.result import BundleRef


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the report's structures: immutable, keyword-only, closed."""


class Estimate(_Struct, frozen=True):
    """A number with its interval: percentiles of the draws that define it."""

    value: float
    low: float | None
    high: float | None
    draws: int


class F1Report(_Struct, frozen=True):
    """F1 with its threshold."""

    value: float
    precision: float
    recall: float
    threshold: float | None
    """Flag what scores at least as much; None where the flags were stored with the scores."""
    chosen: Literal["stored", "best on these images (optimistic)"]


class FindingReport(_Struct, frozen=True):
    """One finding. ``inconclusive`` findings have too few patients; they are in no mean."""

    key: str
    status: Literal["evaluated", "inconclusive"]
    reason: str | None
    part: Part
    images: int
    """Scored images whose label counts."""
    positives: int
    unknown: int
    """Scored images whose label is empty, or uncertain and left out."""
    positive_patients: int
    negative_patients: int
    auroc: Estimate | None
    auprc: Estimate | None
    """Average precision. Compare it with the share of positives, which a model that knows nothing gets."""
    auprc_trapezoid: float | None
    """By the trapezoid rule, as CARZero's code has it."""
    f1: F1Report | None
    published_auroc: float | None = None


class MeanReport(_Struct, frozen=True):
    """Means over the evaluated findings of one part, or of all."""

    part: Part | Literal["all"]
    findings: list[str]
    auroc: Estimate | None
    auprc: Estimate | None
    auprc_trapezoid: float | None
    published_auroc: float | None = None


class ClassesReport(_Struct, frozen=True):
    """Findings that are alternatives: the highest score is the prediction."""

    keys: list[str]
    ordinal: bool
    """Whether they are the steps of a scale, in this order."""
    images: int
    unusable: int
    """Scored images whose labels do not name exactly one of them."""
    accuracy: Estimate
    quadratic_kappa: Estimate | None
    confusion: list[list[int]]
    """Rows: labels; columns: predictions."""


class GroupReport(_Struct, frozen=True):
    """All images, or those of one source."""

    source: str | None
    """None: all images."""
    images: int
    patients: int
    findings: list[FindingReport]
    means: list[MeanReport]
    """All, then head, medium and tail where they hold a finding."""
    auprc_trapezoid_micro: float | None
    """Of all decisions of the evaluated findings in one list, as CARZero's code has it."""
    classes: ClassesReport | None


class ScoresRef(_Struct, frozen=True):
    """Where the scores come from: a bundle that was run, or a table."""

    name: str
    bundle: BundleRef | None
    head: str | None
    """The head of the bundle that was measured."""
    backend: BackendFacts | None


class LabelsRef(_Struct, frozen=True):
    """The table of labels."""

    name: str
    sha256: str
    rows: int
    unused_columns: list[str]
    findings_without_labels: list[str]


class RefusedImage(_Struct, frozen=True):
    """An image that has no score."""

    image: str
    """Its place, no name: ``line 12`` of the table or, without one, ``file 3`` in the order of names."""
    code: str

    @classmethod
    def each(cls, refused: Mapping[str, str]) -> list[RefusedImage]:
        """Return images by place, each with its code, as a report lists them."""
        return [cls(image=place, code=code) for place, code in refused.items()]


class Protocol(_Struct, frozen=True):
    """How the numbers were made."""

    score: str
    uncertain: Uncertain
    clustered_by: Literal["patient_id", "image"]
    draws: int
    seed: int
    confidence: float
    min_patients: int
    tail_positives: int
    head_percentile: float
    published: str | None
    """Name of the published table beside which the numbers stand."""


class EvaluationReport(_Struct, frozen=True):
    """All of ``evaluation.json``. It holds no patient ids."""

    schema: Literal["promptray-evaluation"]
    schema_version: Literal[1]
    software: str
    scores: ScoresRef
    labels: LabelsRef
    protocol: Protocol
    scored: int
    refused: list[RefusedImage]
    unlabelled_files: int | None
    """Files of the folder that no row of labels names; None where no folder was read."""
    groups: list[GroupReport]
    pointing_game: PointingReport | None
    notes: list[str]


def estimate(value: NDArray[np.float64], draws: Sequence[NDArray[np.float64]], confidence: float) -> Estimate:
    """Return a statistic (1,) with the percentile interval of its blocks of draws."""
    low, high, defined = percentile_interval(np.concatenate([np.empty(0), *draws]), confidence)
    return Estimate(value=float(value[0]), low=low, high=high, draws=defined)


def evaluation_schema() -> dict[str, Any]:
    """Return the JSON Schema of the report."""
    return schema_of(EvaluationReport)


def to_json(report: msgspec.Struct) -> bytes:
    """Return a report as indented JSON, UTF-8, one final newline."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
