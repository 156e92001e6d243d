"""What `promptray sensitivity` says: the ranking as JSON, table, plot and page."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from promptray.calibrate.html_page import html_page, html_table
from promptray.calibrate.quantise.sensitivity import Sensitivity
from promptray.calibrate.svg import bar_chart
from promptray.runtime.bundle.gate_summary import ImagesOfGate
from promptray.runtime.json_schema import schema_of


class SensitivityReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of the JSON document. It holds no patient ids and no names of images."""

    schema: Literal["promptray-sensitivity"]
    schema_version: Literal[1]
    software: str
    model: str
    machine: str
    """Class of the machine that the numbers hold for."""
    images: ImagesOfGate
    """That ranges were taken from, and that were scored."""
    schemes: dict[str, str]
    """Of the graphs whose groups are ranked, by the graph's title."""
    findings: list[str]
    """In the order that `worst_finding` counts in."""
    sensitivity: Sensitivity


def sensitivity_schema() -> dict[str, Any]:
    """Return the JSON Schema of the report."""
    return schema_of(SensitivityReport)


def bars(ranked: Sensitivity, *, standalone: bool = False) -> str:
    """Return the ranking as a plot, the most sensitive group on top."""
    shown = [*ranked.groups, ranked.everything]
    return bar_chart(
        f"Effect of quantising each group alone, {ranked.images} images",
        "mean |Δ logit|, share of the spread of images",
        [each.group for each in shown],
        [each.spread for each in shown],
        standalone=standalone,
    )


def sensitivity_page(report: SensitivityReport) -> str:
    """Return the report as one HTML page."""
    facts = [
        f"Model: {report.model}, {', '.join(f'{title}: {tag}' for title, tag in report.schemes.items())}",
        f"Machine: {report.machine}",
        f"Images: {report.images.images}, {report.images.source}; ranges were taken from the same",
        "Whether a quantised model may be used is for a gate to say (docs/gates.md).",
    ]
    return html_page(
        f"Sensitivity of {report.model}",
        facts,
        html_table(report.sensitivity.table()) + bars(report.sensitivity),
    )
