"""Boxes: where in an image a finding is, as a CSV says it.

Columns file, finding, x, y, w, h: left, top, width and height in pixels of the original image, (0, 0) being
its top left corner. Several boxes of one finding in one image are several rows.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from promptray.calibrate.tables.csv_file import read_table


class Box(NamedTuple):
    """A rectangle in pixels of the original image: ``x <= column < x + w``, ``y <= row < y + h``."""

    x: float
    y: float
    w: float
    h: float

    def holds(self, column: float, row: float) -> bool:
        """Tell whether a point, in pixel-edge coordinates, is inside."""
        return self.x <= column < self.x + self.w and self.y <= row < self.y + self.h


def read_boxes(path: Path, keys: Collection[str]) -> dict[str, dict[str, list[Box]]]:
    """Read a CSV of boxes: file -> finding -> boxes.

    Raises
    ------
    TableError
        ``table.format``; ``table.finding`` if a row is of a finding that is not scored.
    """
    table = read_table(path)
    table.require("file", "finding", *Box._fields)
    found: dict[str, dict[str, list[Box]]] = {}
    for row in table.rows:
        key = table.text(row, "finding")
        if key not in keys:
            raise table.error(
                "no finding has this key",
                line=row.line,
                column="finding",
                code="table.finding",
                expected=", ".join(sorted(keys)[:8]),
                cure="correct the cell",
            )
        box = Box(*(table.number(row, field) for field in Box._fields))
        if box.w <= 0 or box.h <= 0:
            raise table.error(
                "a box has no area",
                line=row.line,
                column="w" if box.w <= 0 else "h",
                expected="a width and a height above 0",
                cure="correct the cell",
            )
        found.setdefault(table.text(row, "file"), {}).setdefault(key, []).append(box)
    return found
