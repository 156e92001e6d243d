"""The evaluation report as one HTML page that needs no other file."""

from __future__ import annotations

from promptray.calibrate.evaluation_report import EvaluationReport
from promptray.calibrate.evaluation_table import sections
from promptray.calibrate.html_page import html_page, html_table


def evaluation_html(report: EvaluationReport) -> str:
    """Return the page. Every text of the report is escaped; it holds no script and loads nothing."""
    facts = [f"Software: {report.software}", f"Labels: {report.labels.name}, sha256 {report.labels.sha256}"]
    bundle = report.scores.bundle
    if bundle:
        facts.append(f"Bundle: {bundle.name} ({bundle.family}), sha256 {bundle.sha256}")
        facts.append(f"Intended use: {bundle.model.intended_use}")
        facts.append(f"Licence: {bundle.model.licence}")
        facts.append(f"Training data: {bundle.model.training_data}")
    facts.append(f"Scored {report.scored} images; {len(report.refused)} were refused")
    facts += report.notes
    tables = "".join(html_table(section) for section in sections(report))
    return html_page(f"Evaluation of {report.scores.name}", facts, tables)
