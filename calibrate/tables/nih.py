"""Labels as the NIH publishes those of ChestX-ray14: ``Data_Entry_2017.csv`` and its 2020 edition.

A row holds ``Image Index`` (the file's name), ``Finding Labels`` (names joined by ``|``, or ``No Finding``)
and ``Patient ID``. Wang et al., CVPR 2017. Which images are the test set is not in this file but in a list
(:mod:`promptray.calibrate.tables.image_list`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from promptray.calibrate.tables.csv_file import Row, Table, read_table
from promptray.calibrate.tables.labels import Labels, labels_of
from promptray.runtime.packs import read_pack

_PACK = "chestxray14"
_NORMAL = "No Finding"
_COLUMNS = ("Image Index", "Finding Labels", "Patient ID")


def read_nih_labels(path: Path, keys: Collection[str]) -> Labels:
    """Read the NIH's own file. A finding that is not named is absent: the NIH knows no uncertain labels.

    Parameters
    ----------
    path : Path
        ``Data_Entry_2017.csv`` or ``Data_Entry_2017_v2020.csv``.
    keys : collection of str
        The findings that are scored, by the keys of the pack ``chestxray14``.

    Raises
    ------
    TableError
        ``table.format``; ``table.finding`` if none of the fourteen findings is scored.
    """
    table = read_table(path)
    table.require(*_COLUMNS)
    names = {finding.label or finding.key: finding.key for finding in read_pack(_PACK).findings}
    scored = {name: key for name, key in names.items() if key in keys}
    if not scored:
        raise table.error(
            "none of the NIH's fourteen findings is scored",
            code="table.finding",
            expected=f"findings with keys such as {', '.join(list(names.values())[:4])}",
            cure=f"build the bundle with the pack {_PACK}",
        )
    rows = [_converted(table, row, names, scored) for row in table.rows]
    converted = replace(table, columns=("file", "patient_id", *scored.values()), rows=rows)
    unused = tuple(column for column in table.columns if column not in _COLUMNS)
    return replace(labels_of(converted, {key: key for key in scored.values()}), unused=unused)


def _converted(table: Table, row: Row, names: Collection[str], scored: dict[str, str]) -> Row:
    present = set(table.text(row, "Finding Labels").split("|"))
    if not present <= {*names, _NORMAL} or (_NORMAL in present and len(present) > 1):
        raise table.error(
            "these are not the NIH's names of findings",
            line=row.line,
            column="Finding Labels",
            expected=f"{_NORMAL}, or names such as {', '.join(list(names)[:3])} joined by |",
            cure="use the file as the NIH publishes it, or --labels-format columns",
        )
    cells = {"file": table.text(row, "Image Index"), "patient_id": table.text(row, "Patient ID")}
    return Row(row.line, {**cells, **{key: str(int(name in present)) for name, key in scored.items()}})
