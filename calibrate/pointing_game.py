"""The pointing game: whether the maximum of a heat map is inside a box that a person drew.

The map is a grid over the network's plane. Its maximum is the centre of the cell of greatest value, taken
back to the original image; cells whose centre lies outside the image (padding) do not play, and of equal
cells the first in rows counts. Bilinear enlargement has its maximum at the same point. A hit is a maximum
inside any of the image's boxes of that finding (Zhang et al., IJCV 2018, without their margin of 15 pixels).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.rate import rate_interval
from promptray.calibrate.tables.boxes import Box
from promptray.runtime.finding_names import FindingName
from promptray.runtime.result import Result


class PointingFinding(msgspec.Struct, frozen=True, kw_only=True):
    """How often the maximum was inside a box."""

    key: str
    images: int
    patients: int
    hits: int
    rate: float
    low: float
    high: float
    chance: float
    """The rate of a cell chosen by lot: the mean share of the cells whose centre is in a box."""


class PointingReport(msgspec.Struct, frozen=True, kw_only=True):
    """The pointing game of all findings that have boxes."""

    boxes: str
    """Base name of the CSV of boxes."""
    findings: list[PointingFinding]
    macro_rate: float | None
    """Mean of the findings' rates."""
    without_score: int
    """Images with boxes that were not scored."""


class PointingGame:
    """Plays image by image, so that no map is kept.

    Parameters
    ----------
    name : str
        Base name of the CSV of boxes.
    boxes : mapping
        File -> finding -> boxes.
    """

    def __init__(self, name: str, boxes: Mapping[str, Mapping[str, Sequence[Box]]]) -> None:
        self._name = name
        self._boxes = boxes
        self._seen: set[str] = set()
        self._played: dict[str, list[tuple[int, bool, float]]] = {}

    def play(self, file: str, patient: int, result: Result, head: str) -> None:
        """Play every finding of a head that has boxes in this image.

        Raises
        ------
        ScoringError
            ``score.map-unavailable`` when the model has no map.
        """
        if file not in self._boxes:
            return
        self._seen.add(file)
        for key, boxes in self._boxes[file].items():
            values, inside = _cells(result, (head, key), boxes)
            hit = bool(inside[int(np.argmax(values))])
            self._played.setdefault(key, []).append((patient, hit, float(inside.mean())))

    def report(self) -> PointingReport:
        """Return what was played so far."""
        findings = [_finding(key, played) for key, played in sorted(self._played.items())]
        return PointingReport(
            boxes=self._name,
            findings=findings,
            macro_rate=float(np.mean([finding.rate for finding in findings])) if findings else None,
            without_score=len(set(self._boxes) - self._seen),
        )


def _cells(
    result: Result, finding: FindingName, boxes: Sequence[Box]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return, for the cells whose centre is on the original image, their value and whether a box holds it."""
    grid = result.grid(finding)
    transform = result.document.transform
    plane, original = transform["network"], transform["original"]
    rows = _centres(grid.shape[0], plane["height"], transform["row"])
    columns = _centres(grid.shape[1], plane["width"], transform["column"])
    row_seen = (rows >= 0) & (rows < original["rows"])
    column_seen = (columns >= 0) & (columns < original["columns"])
    inside = [
        any(box.holds(column, row) for box in boxes)
        for row in rows[row_seen]
        for column in columns[column_seen]
    ]
    return grid[np.ix_(row_seen, column_seen)].ravel(), np.array(inside)


def _centres(cells: int, size: int, axis: Mapping[str, float]) -> NDArray[np.float64]:
    """Return the centres of an axis' cells in edge coordinates of the original image."""
    network = (np.arange(cells, dtype=np.float64) + 0.5) * (size / cells)
    return np.asarray((network - axis["offset"]) / axis["scale"])


def _finding(key: str, played: list[tuple[int, bool, float]]) -> PointingFinding:
    hits, patients = sum(hit for _, hit, _ in played), len({patient for patient, _, _ in played})
    rate, low, high = rate_interval(hits, len(played), patients)
    return PointingFinding(
        key=key, images=len(played), patients=patients, hits=hits, rate=rate, low=low, high=high,
        chance=float(np.mean([share for _, _, share in played])),
    )  # fmt: skip
