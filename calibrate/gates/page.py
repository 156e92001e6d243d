"""The gates' report as one HTML page: tables, plots of every finding, and the images that differ most.

The page loads nothing and holds no names of files or patients. It holds pictures only where the caller gives
them: pixels may show a name that was burned into the film. :func:`sealed_page` shows no single image at all.
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from promptray.calibrate.gates.data import Floats, GateData, ModelScores
from promptray.calibrate.gates.plots import MOST_POINTS, bland_altman_plot, roc_plot, scatter_plot
from promptray.calibrate.gates.report import Disagreement, GateReport
from promptray.calibrate.gates.table import headline, sections
from promptray.calibrate.html_page import html_page, html_table
from promptray.runtime.overlay import overlay

#: Row of an image in the data -> its uint8 (rows, columns) picture, as the network saw it.
Pictures = Callable[[int], NDArray[np.uint8]]

BURNED_IN = "These are pictures of patients, and a name may be burned into the film: keep this page as such."
_COLOURS = "ROC: original grey, candidate red."
_LARGEST = 320  # pixels of a picture's longer side
_CELL = 24  # pixels of a map's cell where there is no picture


def gate_page(report: GateReport, data: GateData, pictures: Pictures | None = None) -> str:
    """Return the page.

    Parameters
    ----------
    report : GateReport
    data : GateData
        What the report was made of.
    pictures : callable, optional
        Called for the few images that are shown. What a picture shows must be what the map covers.
    """
    return _page(report, _plots(report, data) + _shown(report, data, pictures))


def sealed_page(report: GateReport, data: GateData) -> str:
    """Return the page as it may leave the house with a bundle: tables and ROC curves.

    Parameters
    ----------
    report : GateReport
        As :func:`promptray.calibrate.gates.report.sealed` makes it.
    data : GateData
    """
    curves = [roc_plot(found.key, *_sides(data, number)) for number, found in enumerate(report.findings)]
    drawn = "".join(curve for curve in curves if curve)
    return _page(report, f"<h2>ROC curves</h2>\n<p>{_COLOURS}</p>\n<div>{drawn}</div>\n" if drawn else "")


def _page(report: GateReport, body: str) -> str:
    facts = [
        report.software,
        *(
            f"{what}: {model.name}{f', sha256 {model.sha256}' if model.sha256 else ''}"
            for what, model in (
                ("Original", report.original),
                ("Candidate", report.candidate),
                ("Noise floor from", report.noise_model),
            )
            if model
        ),
        *report.notes,
    ]
    tables = "".join(html_table(section) for section in sections(report))
    return html_page(headline(report), facts, tables + body)


def _sides(data: GateData, number: int) -> tuple[Floats, Floats, Floats]:
    """Return one finding's logits of the original and the candidate, and its labels."""
    original, candidate = (
        np.asarray(side.logits, np.float64)[:, number] for side in (data.original, data.candidate)
    )
    if data.labels is None:
        return original, candidate, np.full(original.shape, np.nan)
    return original, candidate, np.asarray(data.labels, np.float64)[:, number]


def _plots(report: GateReport, data: GateData) -> str:
    parts = [
        "<h2>Findings</h2>\n<p>Red: present, blue: absent, grey: not labelled. Dashed: threshold, limits"
    ]
    parts.append(f" of 1.96 standard deviations. {_COLOURS}")
    if data.images > MOST_POINTS:
        parts.append(f" {MOST_POINTS} points of {data.images} images: the largest differences and a lot.")
    parts.append("</p>\n")
    for number, found in enumerate(report.findings):
        sides = _sides(data, number)
        threshold = found.flips.threshold
        assert threshold is not None  # noqa: S101 - one finding has one threshold
        plots = [scatter_plot(found.key, *sides, threshold), bland_altman_plot(found.key, *sides)]
        plots.append(roc_plot(found.key, *sides) or "")
        parts.append(f"<div>{''.join(plots)}</div>\n")
    return "".join(parts)


def _shown(report: GateReport, data: GateData, pictures: Pictures | None) -> str:
    if not report.disagreements or (pictures is None and data.original.maps is None):
        return ""
    figures = "".join(_figure(each, data, pictures) for each in report.disagreements)
    warning = f"<p>{escape(BURNED_IN)}</p>\n" if pictures else ""
    return f"<h2>Largest disagreements</h2>\n{warning}{figures}"


def _figure(shown: Disagreement, data: GateData, pictures: Pictures | None) -> str:
    row, finding = data.numbers.index(shown.image), data.findings.index(shown.finding)
    maps = [_map(side, row, finding) for side in (data.original, data.candidate)]
    grey = _small(pictures(row)) if pictures else _blank(maps[0])
    images = [_png(grey, None)] if pictures else []
    images += [_png(grey, each) for each in maps if each is not None]
    agreement = "" if shown.map_correlation is None else f"; maps correlate {shown.map_correlation:.3f}"
    said = (
        f"Image {shown.image}, {shown.finding}: original {shown.original:.4g}, "
        f"candidate {shown.candidate:.4g}{agreement}"
    )
    order = "picture, " if pictures else ""
    order += "map of the original, map of the candidate" if maps[0] is not None else ""
    return (
        f"<figure>{''.join(images)}<figcaption>{escape(said)} ({order.strip(', ')})</figcaption></figure>\n"
    )


def _map(side: ModelScores, row: int, finding: int) -> NDArray[np.float32] | None:
    return None if side.maps is None else np.asarray(side.maps[row, finding], np.float32)


def _blank(cells: NDArray[np.float32] | None) -> NDArray[np.uint8]:
    rows, columns = (1, 1) if cells is None else cells.shape
    return np.zeros((rows * _CELL, columns * _CELL), np.uint8)


def _small(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = Image.fromarray(picture)
    image.thumbnail((_LARGEST, _LARGEST))
    return np.asarray(image)


def _png(grey: NDArray[np.uint8], cells: NDArray[np.float32] | None) -> str:
    """Return a picture, with a map over it where there is one, as an image that is part of the page."""
    if cells is not None:
        rows, columns = grey.shape
        enlarged = Image.fromarray(cells).resize((columns, rows), Image.Resampling.BILINEAR)
        grey = overlay(grey, np.asarray(enlarged, np.float32))
    target = io.BytesIO()
    Image.fromarray(grey).save(target, format="PNG")
    return f'<img alt="" src="data:image/png;base64,{b64encode(target.getvalue()).decode()}">'
