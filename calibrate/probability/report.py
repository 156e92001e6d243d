"""The report of ``promptray calibrate``: a versioned JSON document; the schema is these classes."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from promptray.calibrate.evaluation_report import LabelsRef, RefusedImage
from promptray.calibrate.probability.calibrate import CalibrationReport
from promptray.calibrate.tables.labels import Uncertain
from promptray.runtime.backends import BackendFacts
from promptray.runtime.calibration import Method
from promptray.runtime.errors import PromptRayError
from promptray.runtime.json_schema import schema_of
from promptray.runtime.operating_point import OperatingPoint, Rule
from promptray.runtime.result import BundleRef


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the report's structures: immutable, keyword-only, closed."""


class Refusal(_Struct, frozen=True):
    """Why a finding was not calibrated, and what would do."""

    code: str
    message: str
    expected: str | None
    found: str | None
    cure: str | None

    @classmethod
    def of(cls, error: PromptRayError) -> Refusal:
        """Return the refusal that an error is."""
        return cls(
            code=error.code,
            message=error.message,
            expected=error.expected,
            found=error.found,
            cure=error.cure,
        )


class CalibratedFinding(_Struct, frozen=True):
    """One labelled finding: its calibration, or why there is none."""

    key: str
    refused: Refusal | None
    calibration: CalibrationReport | None
    operating_point: OperatingPoint | None


class Wanted(_Struct, frozen=True):
    """What was asked for."""

    method: Method
    rule: Rule | None
    """None: no threshold."""
    target: float | None
    uncertain: Uncertain
    clustered_by: Literal["patient_id", "image"]
    draws: int
    seed: int


class SiteReport(_Struct, frozen=True):
    """All that was fitted on a table of labels. It holds no patient ids."""

    schema: Literal["promptray-calibration-report"]
    schema_version: Literal[1]
    software: str
    bundle: BundleRef
    head: str
    backend: BackendFacts
    strict: bool
    labels: LabelsRef
    wanted: Wanted
    scored: int
    united: int
    """Patients (without ids: images) that count as another's because they share a picture."""
    refused: list[RefusedImage]
    findings: list[CalibratedFinding]
    stored: bool
    """Whether the calibrations were stored in the site directory."""
    notes: list[str]


def calibration_schema() -> dict[str, Any]:
    """Return the JSON Schema of the report."""
    return schema_of(SiteReport)
