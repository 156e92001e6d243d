"""The calibration report as one HTML page that loads nothing, with a reliability diagram per finding."""

from __future__ import annotations

from promptray.calibrate.html_page import html_page, html_table
from promptray.calibrate.probability.reliability import reliability_diagram
from promptray.calibrate.probability.report import SiteReport
from promptray.calibrate.probability.table import sections


def calibration_page(report: SiteReport) -> str:
    """Return the page. Every text of the report is escaped; it holds no script and loads nothing."""
    bundle = report.bundle
    facts = [
        f"Software: {report.software}",
        f"Bundle: {bundle.name} ({bundle.family}), sha256 {bundle.sha256}",
        f"Intended use: {bundle.model.intended_use}",
        f"Scored on {report.backend.name}, {report.backend.precision}",
        f"Labels: {report.labels.name}, sha256 {report.labels.sha256}",
        f"Scored {report.scored} images; {len(report.refused)} were refused",
        "The probabilities hold for images like these, where findings are as frequent as here.",
        "Diagrams: of images of about the same probability, the share that had the finding.",
        "Stored in the site directory." if report.stored else "Nothing was stored.",
        *report.notes,
    ]
    tables = "".join(html_table(section) for section in sections(report))
    diagrams = "".join(
        reliability_diagram(each.calibration) for each in report.findings if each.calibration is not None
    )
    return html_page(f"Calibration of {bundle.name}", facts, tables + diagrams)
