"""The reliability diagram: of the images that were given a probability, how many had the finding."""

from __future__ import annotations

from promptray.calibrate.probability.calibrate import CalibrationReport
from promptray.calibrate.svg import Plot

_LINE, _POINT = "#777777", "#2166ac"


def reliability_diagram(report: CalibrationReport, *, standalone: bool = False) -> str:
    """Return the diagram as SVG: held-out patients, bins with Clopper-Pearson intervals, the diagonal dashed.

    Parameters
    ----------
    report : CalibrationReport
    standalone : bool
        For a file of its own; otherwise for a page.
    """
    calibration = report.calibration
    method = type(calibration.curve).__name__.lower()
    plot = Plot(
        f"{calibration.finding}, {method}, {calibration.images} images",
        "probability",
        "share with the finding",
        (0.0, 1.0),
        (0.0, 1.0),
    )
    plot.line([0, 1], [0, 1], _LINE, dashed=True)
    for each in report.bins:
        plot.line([each.probability] * 2, [each.low, each.high], _POINT)
    plot.points([each.probability for each in report.bins], [each.rate for each in report.bins], _POINT)
    return plot.svg(standalone=standalone)
