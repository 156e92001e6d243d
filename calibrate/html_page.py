"""One HTML page that needs no other file: it holds no script and loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from promptray.calibrate.evaluation_table import Section

_STYLE = (
    "body{font:14px/1.4 sans-serif;margin:2em;max-width:80em}table{border-collapse:collapse;margin:0 0 2em}"
    "caption{text-align:left;font-weight:bold;padding:.3em 0}"
    "th,td{border-bottom:1px solid #ccc;padding:.2em .8em;text-align:left;vertical-align:top}"
    "@media print{body{font-size:10px;margin:0}tr,figure,svg{break-inside:avoid}"
    "caption{break-after:avoid}td,code{overflow-wrap:anywhere}}"
)


def html_page(title: str, facts: Sequence[str], body: str) -> str:
    """Return a page with a list of facts above its body; title and facts are escaped, the body is HTML."""
    items = "".join(f"<li>{escape(fact)}</li>\n" for fact in facts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body>\n<h1>{escape(title)}</h1>\n<ul>\n{items}</ul>\n{body}</body>\n</html>\n"
    )


def html_table(section: Section) -> str:
    """Return a table, every cell escaped."""
    head = "".join(f"<th>{escape(column)}</th>" for column in section.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in section.rows
    )
    return f"<table>\n<caption>{escape(section.title)}</caption>\n<tr>{head}</tr>\n{rows}</table>\n"
