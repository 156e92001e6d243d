"""Labelled images of a site: each has a class and, where the table says so, patient, exam and part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.adapt.id_columns import find_id_column, number_ids, suspected
from promptray.calibrate.tables.csv_file import Row, Table, read_table
from promptray.calibrate.tables.labels import LabelledImage, Labels, labels_of

#: What a row may say of its image beside class and ids.
_FACTS = ("file", "modality", "frame")
_IDS = ("patient", "exam", "group")
#: What a column of parts may say -> the part.
_PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}  # fmt: skip


@dataclass(frozen=True)
class Columns:
    """Which columns say what. None: `patient` and `exam` are looked for by their usual names.

    Attributes
    ----------
    label : str
        The class of each image.
    patient, exam : str, optional
        Whose image it is, and of which examination.
    group : str, optional
        What else must not be divided: a block, a site, a scanner.
    split : str, optional
        The part of each image: train, val or test.
    """

    label: str
    patient: str | None = None
    exam: str | None = None
    group: str | None = None
    split: str | None = None


@dataclass(frozen=True, eq=False)
class Cases:
    """n images with a class each.

    Attributes
    ----------
    labels : Labels
        The images and the table they are from; it holds no findings.
    keys : tuple of str
        The K classes.
    classes : ndarray of int64, shape (n,)
        Which class each image is of.
    ids : dict of str to ndarray of int64, shape (n,)
        For each of ``patient``, ``exam`` and ``group`` that the table knows: a number in place of the id.
    columns : dict of str to str
        The column behind each of `ids`.
    parts : list of str or None
        ``train``, ``val`` or ``test``, where the table says.
    unlabelled : int
        Rows without a class, which are left out.
    unused : tuple of str
        Columns that are not used.
    suspected : tuple of str
        Those of them that may number people and join many rows, where no column of patients is known.
    """

    labels: Labels
    keys: tuple[str, ...]
    classes: NDArray[np.int64]
    ids: dict[str, NDArray[np.int64]]
    columns: dict[str, str]
    parts: list[str] | None
    unlabelled: int
    unused: tuple[str, ...]
    suspected: tuple[str, ...]

    @property
    def images(self) -> list[LabelledImage]:
        """The images, in the order of the rows."""
        return self.labels.images

    @property
    def lines(self) -> list[int]:
        """The line of the table that each image is in: what errors name."""
        return [image.line for image in self.images]

    def select(self, rows: Sequence[int]) -> Cases:
        """Return some of the images, in this order."""
        index = np.asarray(rows, np.intp)
        return replace(
            self,
            labels=self.labels.select(rows),
            classes=self.classes[index],
            ids={kind: numbers[index] for kind, numbers in self.ids.items()},
            parts=None if self.parts is None else [self.parts[row] for row in rows],
        )


def read_cases(path: Path, keys: Sequence[str], names: Mapping[str, str], columns: Columns) -> Cases:
    """Read a CSV with a class per image.

    Parameters
    ----------
    path : Path
        Columns ``file``, that of the class, and those that :class:`Columns` describes; ``modality`` and
        ``frame`` are read as by ``promptray evaluate``.
    keys : sequence of str
        The classes.
    names : mapping of str to str
        What the table calls them -> key.
    columns : Columns

    Raises
    ------
    TableError
        ``table.not-found``, ``table.format``, ``table.finding``.
    """
    table = read_table(path)
    used = _used(table, columns)
    table.require("file", *used.values())
    labelled = replace(table, rows=[row for row in table.rows if row.cells[columns.label]])
    if not labelled.rows:
        raise table.error(
            "no row has a class", column=columns.label, cure="fill the column, or correct --column"
        )
    facts = tuple(column for column in table.columns if column in _FACTS)
    places = {key: number for number, key in enumerate(keys)}
    classes = [places[_class(table, row, columns.label, names, keys)] for row in labelled.rows]
    unused = tuple(c for c in table.columns if c not in {*_FACTS, *used.values()})
    ids = {kind: used[kind] for kind in _IDS if kind in used}
    return Cases(
        labels=labels_of(replace(labelled, columns=facts), {}),
        keys=tuple(keys),
        classes=np.array(classes, np.int64),
        ids={kind: number_ids(labelled, column, zeros=kind == "group") for kind, column in ids.items()},
        columns=ids,
        parts=[_part(table, row, columns.split) for row in labelled.rows] if columns.split else None,
        unlabelled=len(table.rows) - len(labelled.rows),
        unused=unused,
        suspected=() if "patient" in ids else suspected(labelled, unused),
    )


def _used(table: Table, columns: Columns) -> dict[str, str]:
    """Return what columns say -> the column, those of usual names among them."""
    taken = astuple(columns)
    stated = asdict(columns)
    stated["patient"] = columns.patient or find_id_column(table, "patient", taken)
    known = stated["patient"]
    stated["exam"] = columns.exam or find_id_column(table, "exam", (*taken, known), ask=known is None)
    says_else = {*_FACTS, columns.label, columns.split} - {None}
    for kind in _IDS:
        if stated[kind] in says_else:
            raise table.error(
                f"this column does not say which {kind} an image is of",
                line=1,
                column=stated[kind],
                cure=f"say --{kind} with the column that does, or leave it out",
            )
    return {kind: column for kind, column in stated.items() if column is not None}


def _class(table: Table, row: Row, column: str, names: Mapping[str, str], keys: Sequence[str]) -> str:
    key = names.get(row.cells[column])
    if key is None:
        raise table.error(
            "a label is none of the recipe's classes",
            line=row.line,
            column=column,
            code="table.finding",
            expected=f"one of {', '.join(keys)}",
            cure="correct the cell, empty it, or say --class VALUE=KEY",
        )
    return key


def _part(table: Table, row: Row, column: str) -> str:
    part = _PARTS.get(table.text(row, column).lower())
    if part is None:
        raise table.error(
            "a cell names no part",
            line=row.line,
            column=column,
            expected="train, val or test",
            cure="correct the cell, or leave --split out and let the images be divided",
        )
    return part
