"""The report as one picture: the main numbers of the stages with their intervals."""

from __future__ import annotations

import io

from promptray.calibrate.adapt.report import AdaptationReport

_MAIN = ("accuracy", "balanced accuracy", "macro F1", "macro AUROC", "quadratic kappa")


def plot(report: AdaptationReport) -> bytes:
    """Return a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name in _MAIN if all(name in stage.numbers for stage in report.stages)]
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, stage in enumerate(report.stages):
        found = [stage.numbers[name] for name in names]
        places = [place + 0.2 * (number - (len(report.stages) - 1) / 2) for place in range(len(names))]
        low = [each.value if each.low is None else each.low for each in found]
        high = [each.value if each.high is None else each.high for each in found]
        axes.vlines(places, low, high, color=f"C{number}")
        axes.plot(places, [each.value for each in found], "o", color=f"C{number}", label=stage.name)
    axes.set_xticks(range(len(names)), names)
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1)
    axes.axhline(0, color="0.8", linewidth=0.8)
    axes.set_title(f"Test part: {report.intervals.units} {report.division.units}, 95 % intervals")
    figure.legend(frameon=False, loc="outside lower center", ncols=len(report.stages))
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120, metadata={"Software": None})
    return content.getvalue()
