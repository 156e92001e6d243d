"""The openly licensed radiographs that the reference model is made from.

They are children's chest radiographs of the collection of Kermany, Zhang and Goldbaum (CC BY 4.0), as a
folder with ``labels.csv`` and JPEG files. Rows of any other source or licence in that table are left out.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.image_file import decode_jpeg

SOURCE = "kermany-guangzhou"
LICENCE = "CC BY 4.0"
ATTRIBUTION = (
    "Kermany, Zhang, Goldbaum. Labeled OCT and Chest X-Ray Images. Mendeley Data v2, 2018. "
    "doi:10.17632/rscbjbr9sj.2"
)

_CLASS_OF_GROUP = {"normal": "normal", "pneumonia-bacterial": "bacterial", "pneumonia-viral": "viral"}


@dataclass(frozen=True)
class Radiograph:
    """One image of the collection.

    Attributes
    ----------
    image_id, source_file : str
        Name in the folder, and name in the published collection.
    path : Path
        An 8-bit grey JPEG.
    label : str
        One of `reference.wordings.CLASSES`.
    patient : str
        All images of one person share it.
    """

    image_id: str
    source_file: str
    path: Path
    label: str
    patient: str

    def grey(self) -> NDArray[np.uint8]:
        """Decode to uint8 (rows, columns), as the runtime does."""
        return decode_jpeg(self.path.read_bytes())


def read_radiographs(data: Path) -> list[Radiograph]:
    """Read the table ``DATA/cxr/labels.csv``; the order is that of the image ids.

    Raises
    ------
    FileNotFoundError
        If the table is not there.
    ValueError
        If it holds no image of the wanted source and licence.
    """
    folder = data / "cxr"
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as table:
        rows = [row for row in csv.DictReader(table) if (row["source"], row["licence"]) == (SOURCE, LICENCE)]
    if not rows:
        raise ValueError(f"labels.csv has no row of source {SOURCE!r} under {LICENCE}")
    return sorted(
        (
            Radiograph(
                image_id=row["image_id"],
                source_file=row["source_file"],
                path=folder / row["file"],
                label=_CLASS_OF_GROUP[row["group"]],
                patient=row["patient_id"],
            )
            for row in rows
        ),
        key=lambda radiograph: radiograph.image_id,
    )
