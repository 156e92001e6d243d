"""Labels: which finding is present in which image, as a CSV says it.

One row per image (or frame) and these columns:

file         path below the folder of images, or a name that occurs once in it
KEY          one column per finding: 1 present, 0 absent, empty unknown, -1 uncertain
patient_id   optional: images of one patient are drawn together when intervals are made
source       optional: hospital, scanner, collection; results are given for each as well
modality     optional: of files that state none (PNG, JPEG), for example DX
frame        optional: of a multi-frame object, counted from 1

Other columns are not used, and the report names them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.tables.csv_file import Row, Table, read_table

PRESENT, ABSENT, UNKNOWN, UNCERTAIN = 1, 0, -2, -1
Uncertain = Literal["ignore", "present", "absent"]

_VALUES = {1.0: PRESENT, 0.0: ABSENT, -1.0: UNCERTAIN}
#: Columns that are about the image: no finding is called so.
RESERVED = ("file", "patient_id", "source", "modality", "frame")


@dataclass(frozen=True)
class LabelledImage:
    """What a row says of an image beside its findings."""

    file: str
    line: int
    modality: str | None = None
    frame: int | None = None
    counted: Literal["line", "file"] = "line"
    """What `line` counts: lines of a table or, where there is none, files in the order of their names."""

    @property
    def name(self) -> str:
        """What the image is called in tables of scores: ``film.dcm``, or ``loop.dcm#3`` for a frame."""
        return self.file if self.frame is None else f"{self.file}#{self.frame}"

    @property
    def place(self) -> str:
        """What reports call it, for a file's name may be a patient's: ``line 12``, or ``file 3``."""
        return f"{self.counted} {self.line}"


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of n images for k findings.

    Attributes
    ----------
    table, sha256 : str
        Base name and hash of the CSV.
    images : list of LabelledImage
        In the order of the rows.
    keys : tuple of str
        The findings that have a column.
    values : ndarray of int8, shape (n, k)
        `PRESENT`, `ABSENT`, `UNKNOWN` or `UNCERTAIN`.
    patients : ndarray of int, shape (n,)
        A number for each patient; every image its own where the table does not say.
    clustered : bool
        Whether the table says whose images they are.
    sources : list of str or None
        Where each image is from; None where the table does not say.
    unused : tuple of str
        Columns that are not used.
    """

    table: str
    sha256: str
    images: list[LabelledImage]
    keys: tuple[str, ...]
    values: NDArray[np.int8]
    patients: NDArray[np.int64]
    clustered: bool
    sources: list[str] | None
    unused: tuple[str, ...]

    @property
    def known_patients(self) -> NDArray[np.int64] | None:
        """The patients, where the table names them."""
        return self.patients if self.clustered else None

    def select(self, rows: Sequence[int]) -> Labels:
        """Return the labels of some images, in this order."""
        index = np.asarray(rows, dtype=np.intp)
        return replace(
            self,
            images=[self.images[row] for row in rows],
            values=self.values[index],
            patients=self.patients[index],
            sources=None if self.sources is None else [self.sources[row] for row in rows],
        )


def read_labels(
    path: Path,
    keys: Collection[str],
    *,
    renamed: Mapping[str, str] | None = None,
    aliases: Mapping[str, str] | None = None,
) -> Labels:
    """Read a CSV of labels.

    Parameters
    ----------
    path : Path
    keys : collection of str
        The findings that are scored; a column of this name is a finding's labels.
    renamed : mapping of str to str, optional
        Columns that are called otherwise than the finding's key: column -> key.
    aliases : mapping of str to str, optional
        Names that columns may have (those of a data set's own files, say): column -> key.

    Raises
    ------
    TableError
        ``table.format``; ``table.finding`` if no column is a finding's.
    """
    table = read_table(path)
    table.require("file", *(renamed or {}))
    column_of = {key: key for key in table.columns if key in keys and key not in RESERVED}
    named = {
        column: key for column, key in (aliases or {}).items() if column in table.columns and key in keys
    }
    for column, key in {**named, **(renamed or {})}.items():
        if key not in keys:
            raise table.error(
                "no finding has this key",
                column=column,
                found=key,
                code="table.finding",
                expected=_some(keys),
                cure="correct --column",
            )
        if column_of.get(key, column) != column:
            raise table.error(
                "two columns stand for the same finding",
                line=1,
                column=column,
                found=key,
                cure="correct --column, or rename the other column",
            )
        column_of[key] = column
    if not column_of:
        raise table.error(
            "no column is a finding's labels",
            line=1,
            code="table.finding",
            expected=f"a column named {_some(keys)}",
            found=_some(table.columns),
            cure="rename a column, or say --column COLUMN=KEY or --pack NAME",
        )
    return labels_of(table, column_of)


def labels_of(table: Table, column_of: Mapping[str, str]) -> Labels:
    """Return the labels of a table: the finding's key -> its column."""
    images: list[LabelledImage] = []
    seen: dict[str, int] = {}
    for row in table.rows:
        image = _image(table, row)
        if image.name in seen:
            raise table.error(
                "two rows are about the same image",
                line=row.line,
                column="file",
                found=f"it is in line {seen[image.name]} already",
                cure="delete one of them, or tell frames apart by a column named frame",
            )
        seen[image.name] = row.line
        images.append(image)
    values = [[_value(table, row, column) for column in column_of.values()] for row in table.rows]
    clustered = "patient_id" in table.columns
    people = (
        [patient_key(table.text(row, "patient_id")) for row in table.rows]
        if clustered
        else range(len(images))
    )
    used = {*column_of.values(), *RESERVED}
    return Labels(
        table=table.name,
        sha256=table.sha256,
        images=images,
        keys=tuple(column_of),
        values=np.array(values, np.int8).reshape(len(images), len(column_of)),
        patients=np.unique(people, return_inverse=True)[1].reshape(-1),
        clustered=clustered,
        sources=[row.cells["source"] or "not stated" for row in table.rows]
        if "source" in table.columns
        else None,
        unused=tuple(column for column in table.columns if column not in used),
    )


def patient_key(patient_id: str) -> str:
    """Return what an id of a patient is compared by: ids that differ in case or blanks only are one."""
    return "".join(patient_id.split()).casefold()


def known(values: NDArray[np.int8], uncertain: Uncertain) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which labels count, and which of them are present, of the same shape as `values`.

    ``ignore`` leaves uncertain ones out; ``present`` and ``absent`` count them so (CheXpert's U-Ignore,
    U-Ones and U-Zeros; Irvin et al., AAAI 2019).
    """
    counted = {"ignore": UNKNOWN, "present": PRESENT, "absent": ABSENT}[uncertain]
    settled = np.where(values == UNCERTAIN, np.int8(counted), values)
    return settled != UNKNOWN, settled == PRESENT


def _image(table: Table, row: Row) -> LabelledImage:
    frame: int | None = None
    if row.cells.get("frame"):
        number = table.number(row, "frame")
        if number < 1 or number != int(number):
            raise table.error(
                "a frame is not a whole number from 1",
                line=row.line,
                column="frame",
                cure="count frames from 1, as DICOM does",
            )
        frame = int(number)
    return LabelledImage(table.text(row, "file"), row.line, row.cells.get("modality") or None, frame)


def _value(table: Table, row: Row, column: str) -> int:
    if not row.cells[column]:
        return UNKNOWN
    value = _VALUES.get(table.number(row, column))
    if value is None:
        raise table.error(
            "a label is none of 1, 0, -1 and empty",
            line=row.line,
            column=column,
            expected="1 present, 0 absent, empty unknown, -1 uncertain",
            found="another number",
            cure="correct the cell",
        )
    return value


def _some(names: Collection[str]) -> str:
    """Name the first of many."""
    shown = sorted(names)[:8]
    return ", ".join(shown) + (f" ... ({len(names)} in all)" if len(names) > len(shown) else "")
