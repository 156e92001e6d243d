"""Tables of who is in which part: all images, and one part's labels as ``promptray evaluate`` reads them.

Neither holds an id: patients, exams and groups are numbers of units.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

import numpy as np

from promptray.calibrate.adapt.data import Data


def splits(data: Data) -> bytes:
    """Return a row for each image: file, frame, class, part and unit."""
    rows = [
        [image.file, image.frame or "", data.cases.keys[label], part, unit + 1]
        for image, label, part, unit in zip(
            data.cases.images, data.cases.classes, data.parts, data.units, strict=True
        )
    ]
    return _csv(["file", "frame", "class", "part", "unit"], rows)


def part_labels(data: Data, part: str) -> bytes:
    """Return the labels of a part: file, frame, modality, a column of 0 and 1 for each class.

    Where images hang together there is a column ``patient_id`` too, which holds the number of the unit: by it
    ``promptray evaluate`` draws together what was kept together.
    """
    joined = bool(data.cases.ids) or len(np.unique(data.units)) < len(data.units)
    rows = []
    for row in data.rows(part):
        image, unit = data.cases.images[row], [data.units[row] + 1] if joined else []
        truth = [int(number == data.cases.classes[row]) for number in range(len(data.cases.keys))]
        rows.append([image.file, image.frame or "", image.modality or "", *unit, *truth])
    return _csv(
        ["file", "frame", "modality", *(["patient_id"] if joined else []), *data.cases.keys],
        rows,
    )


def _csv(header: list[str], rows: Iterable[list[object]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()
