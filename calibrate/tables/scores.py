"""Scores of images as a table: written by ``promptray evaluate``, read to be evaluated or compared later.

Columns file, finding, logit and, where the findings are alternatives or calibrated, softmax and probability.
A table from elsewhere has file, finding and score. A row per image and finding; an image without score has
no row.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.tables.csv_file import Table, read_table

Kind = Literal["logit", "softmax", "probability", "score"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores of n images for k findings.

    Attributes
    ----------
    origin : str
        Name of the bundle or of the CSV.
    names : list of str
        The images (see ``LabelledImage.name``).
    keys : tuple of str
        The findings.
    values : dict of str to ndarray of float64, shape (n, k)
        By kind of score; NaN where there is none.
    flags : ndarray of float64, shape (n, k), optional
        1 flagged, 0 not, NaN where no threshold is stored.
    thresholds : dict of str to float
        Stored ones, by finding: a logit of at least this is flagged.
    refused : dict of str to str
        Images that have no score, by their place (see ``LabelledImage.place``), with the code that says why.
    head : str, optional
        The head of the bundle.
    pictures : list of (str or None), optional
        Hash of each image's picture as the network saw it; None where it has no score, and nothing of a
        table that was read.
    """

    origin: str
    names: list[str]
    keys: tuple[str, ...]
    values: dict[Kind, NDArray[np.float64]]
    flags: NDArray[np.float64] | None = None
    refused: dict[str, str] = field(default_factory=dict)
    head: str | None = None
    thresholds: dict[str, float] = field(default_factory=dict)
    pictures: list[str | None] | None = None

    def raw(self) -> NDArray[np.float64]:
        """Return the scores that models are compared by: logits, or the only ones there are."""
        return self.values["logit"] if "logit" in self.values else next(iter(self.values.values()))


def write_scores(table: ScoreTable) -> bytes:
    """Return a table as CSV, UTF-8. Numbers are written so that the same float64 is read back."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "finding", *table.values])
    for row, name in enumerate(table.names):
        for column, key in enumerate(table.keys):
            cells = [values[row, column] for values in table.values.values()]
            if not np.isnan(cells).all():
                writer.writerow([name, key, *("" if np.isnan(cell) else repr(float(cell)) for cell in cells)])
    return text.getvalue().encode()


def read_scores(path: Path) -> ScoreTable:
    """Read a table of scores.

    Raises
    ------
    TableError
        ``table.format``: no column of scores, a cell that is no number, two rows of one image and finding.
    """
    table = read_table(path)
    table.require("file", "finding")
    kinds = [kind for kind in KINDS if kind in table.columns]
    if not kinds:
        raise table.error(
            "there is no column of scores",
            line=1,
            column="score",
            expected=f"one of the columns {', '.join(KINDS)}",
            cure="name the column of scores in the first line",
        )
    names = list(dict.fromkeys(table.text(row, "file") for row in table.rows))
    keys = tuple(dict.fromkeys(table.text(row, "finding") for row in table.rows))
    place = {name: n for n, name in enumerate(names)}, {key: k for k, key in enumerate(keys)}
    values = {kind: np.full((len(names), len(keys)), np.nan) for kind in kinds}
    _refuse_twice(table)
    for row in table.rows:
        for kind in kinds:
            if row.cells[kind] or kind == kinds[0]:
                at = place[0][row.cells["file"]], place[1][row.cells["finding"]]
                values[kind][at] = table.number(row, kind)
    return ScoreTable(table.name, names, keys, values)


def _refuse_twice(table: Table) -> None:
    """Refuse two rows of one image and finding."""
    seen: dict[tuple[str, str], int] = {}
    for row in table.rows:
        first = seen.setdefault((row.cells["file"], row.cells["finding"]), row.line)
        if first != row.line:
            raise table.error(
                "two rows are about the same image and finding",
                line=row.line,
                column="file",
                found=f"they are in line {first} already",
                cure="delete one of them",
            )
