"""The report as one HTML page that needs no other file, with plots."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from promptray.calibrate.bench.report import BenchReport, Scenario, Sweep
from promptray.calibrate.bench.table import facts, sections
from promptray.calibrate.html_page import html_page, html_table
from promptray.calibrate.svg import Plot, bar_chart, span

_BLUE, _RED = "#4878a8", "#b04a3a"
_MOST_POINTS = 2000


def bench_html(report: BenchReport) -> str:
    """Return the page. Every text of the report is escaped; it holds no script and loads nothing."""
    plots = "".join(f"<figure>{each}</figure>\n" for each in _plots(report))
    tables = "".join(html_table(section) for section in sections(report))
    return html_page(f"Bench of {report.bundle.name}", facts(report), plots + tables)


def _plots(report: BenchReport) -> Iterator[str]:
    for scenario in report.scenarios:
        if scenario.latency and len(scenario.latency.each) > 1:
            yield _in_order(scenario)
            yield _distribution(scenario)
        if scenario.stages:
            names = [stage.name for stage in scenario.stages]
            shares = [max(stage.share, 0.0) for stage in scenario.stages]
            yield bar_chart(f"{scenario.name}: stages", "share of the mean", names, shares)
    for sweep in report.sweeps:
        yield from _of_sweep(sweep)


def _in_order(scenario: Scenario) -> str:
    """Latency of each query in the order of asking: drift and throttling show."""
    values = np.array(scenario.latency.each if scenario.latency else [])
    number = np.arange(1, len(values) + 1)
    shown = slice(None, None, max(1, len(values) // _MOST_POINTS))
    plot = Plot(f"{scenario.name}: in the order of asking", "query", "ms", span(number), span(values))
    plot.points(number[shown], values[shown], _BLUE)
    return plot.svg()


def _distribution(scenario: Scenario) -> str:
    """Share of queries within a latency, with the early-stopping estimates."""
    assert scenario.latency is not None  # noqa: S101 - the caller looked
    values = np.sort(scenario.latency.each)
    share = np.arange(1, len(values) + 1) / scenario.latency.queries
    shown = slice(None, None, max(1, len(values) // _MOST_POINTS))
    plot = Plot(f"{scenario.name}: share within", "ms", "share", span(values), (-0.02, 1.02))
    plot.line(values[shown], share[shown], _BLUE)
    rows = scenario.latency.percentiles
    if rows:
        estimates = [row.early_stopping_ms for row in rows]
        plot.points(estimates, [row.percentile / 100 for row in rows], _RED)
    return plot.svg()


def _of_sweep(sweep: Sweep) -> Iterator[str]:
    rows = [row for row in sweep.rows if row.milliseconds is not None and row.number is not None]
    if len(rows) < 2:
        return
    across = [row.number for row in rows if row.number is not None]
    values = [row.milliseconds.value for row in rows if row.milliseconds]
    plot = Plot(f"Sweep: {sweep.name}", sweep.name, "median ms", span(across), span([0.0, *values]))
    plot.line(across, values, _BLUE)
    plot.points(across, values, _BLUE)
    yield plot.svg()
