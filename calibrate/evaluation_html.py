"""The evaluation report as one HTML page that needs no other file."""

from __future__ import annotations

from html import escape

from promptray.calibrate.evaluation_report import EvaluationReport
from promptray.calibrate.evaluation_table import Section, sections

_STYLE = (
    "body{font:14px/1.4 sans-serif;margin:2em;max-width:80em}table{border-collapse:collapse;margin:0 0 2em}"
    "caption{text-align:left;font-weight:bold;padding:.3em 0}"
    "th,td{border-bottom:1px solid #ccc;padding:.2em .8em;text-align:left;vertical-align:top}"
)


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
    title = f"Evaluation of {report.scores.name}"
    body = "".join(f"<li>{escape(fact)}</li>\n" for fact in facts)
    tables = "".join(_table(section) for section in sections(report))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body>\n<h1>{escape(title)}</h1>\n<ul>\n{body}</ul>\n{tables}</body>\n</html>\n"
    )


def _table(section: Section) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in section.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in section.rows
    )
    return f"<table>\n<caption>{escape(section.title)}</caption>\n<tr>{head}</tr>\n{rows}</table>\n"
