"""The report as one HTML page for the file: it needs no other file, and ends with lines to sign."""

from __future__ import annotations

from html import escape

from promptray.calibrate.accept.report import AcceptanceReport
from promptray.calibrate.accept.table import facts, headline, parts, sections
from promptray.calibrate.evaluation_table import Section
from promptray.calibrate.html_page import html_page, html_table

_LINE = "_" * 32
_SIGNATURES = Section(
    "Signatures",
    ["role", "name", "date", "signature"],
    [[role, _LINE, _LINE[:16], _LINE] for role in ("Carried out by", "Released by")],
)


def acceptance_html(report: AcceptanceReport, seal: str) -> str:
    """Return the page. Every text of the report is escaped; it holds no script and loads nothing.

    Parameters
    ----------
    report : AcceptanceReport
    seal : str
        SHA-256 of ``accept.json``, which this page is a copy of for people.
    """
    sealed = f"<p>Seal, sha256 of accept.json: <code>{escape(seal)}</code></p>\n"
    tables = "".join(html_table(section) for section in sections(report) if section.rows)
    empty = "".join(f"<p>{escape(section.title)}.</p>\n" for section in sections(report) if not section.rows)
    body = sealed + html_table(parts(report)) + html_table(_SIGNATURES) + empty + tables
    return html_page(f"Acceptance of {headline(report)}", facts(report), body)
