"""Calibrations as rows for people: the same on the terminal and in HTML."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from promptray.calibrate.evaluation_table import Section
from promptray.runtime.calibration import Calibration
from promptray.runtime.operating_point import OperatingPoint, Share
from promptray.runtime.site_calibration import SiteCalibration

if TYPE_CHECKING:  # listing what is stored needs nothing that fits
    from promptray.calibrate.probability.report import CalibratedFinding, SiteReport


def sections(report: SiteReport) -> list[Section]:
    """Return every table of a report."""
    found = []
    fitted = [each for each in report.findings if each.calibration is not None]
    refused = [each for each in report.findings if each.refused is not None]
    if fitted:
        found.append(_fitted(report, fitted))
    if refused:
        found.append(_refused(refused))
    if report.refused:
        rows = [[image.image, image.code] for image in report.refused]
        found.append(Section(f"No score: {len(rows)} images", ["image", "code"], rows))
    return found


def stored_section(stored: Iterable[SiteCalibration]) -> Section:
    """Return the calibrations that a site holds."""
    rows = []
    for each in stored:
        made, basis = each.content.calibration, each.content.basis
        rows.append(
            [
                each.content.head,
                each.finding,
                made.method,
                _images(made),
                f"{made.prevalence:.3f}",
                *_point(each.point),
                f"{basis.gated_as or basis.backend}, {basis.precision}"
                + (", strict" if basis.strict else ""),
                made.date,
                each.id[:12],
            ]
        )
    columns = ["head", "finding", "method", "images (patients)", "prevalence", "threshold", "sensitivity",
               "specificity", "scored by", "date", "id"]  # fmt: skip
    return Section("Calibrations of this site", columns, rows)


def _fitted(report: SiteReport, fitted: list[CalibratedFinding]) -> Section:
    rows = []
    for each in fitted:
        found = each.calibration
        assert found is not None  # noqa: S101 - these were fitted
        brier, error, made = found.brier, found.calibration_error, found.calibration
        rows.append(
            [
                each.key,
                _images(made),
                f"{found.prevalence:.3f}",
                f"{_interval(brier.value, brier.low, brier.high)} ({found.brier_of_prevalence:.3f})",
                f"{_interval(error.value, error.low, error.high)} ({found.error_by_chance:.3f})",
                *_point(each.operating_point),
            ]
        )
    wanted = report.wanted
    rule = "no threshold" if wanted.rule is None else f"{wanted.rule} at {wanted.target:g}"
    title = (
        f"{report.bundle.name}, head {report.head}: {wanted.method}, {rule}. Measured on patients that had "
        f"no part in the fit, 95 % intervals over patients"
    )
    columns = ["finding", "images (patients)", "prevalence", "Brier (of prevalence)", "ECE (by chance)",
               "threshold", "sensitivity", "specificity"]  # fmt: skip
    return Section(title, columns, rows)


def _refused(refused: list[CalibratedFinding]) -> Section:
    rows = []
    for each in refused:
        why = each.refused
        assert why is not None  # noqa: S101 - these were refused
        rows.append([each.key, why.code, why.message, why.expected or "", why.found or "", why.cure or ""])
    columns = ["finding", "code", "why", "expected", "found", "cure"]
    return Section(f"Not calibrated: {len(rows)} findings", columns, rows)


def _images(made: Calibration) -> str:
    return f"{made.images} ({'unknown' if made.patients is None else made.patients})"


def _point(point: OperatingPoint | None) -> list[str]:
    if point is None:
        return ["none", "", ""]
    return [f"{point.threshold:+.4g}", _share(point.sensitivity), _share(point.specificity)]


def _share(share: Share) -> str:
    return _interval(share.value, share.low, share.high)


def _interval(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.3f}" + ("" if low is None or high is None else f" [{low:.3f}, {high:.3f}]")
