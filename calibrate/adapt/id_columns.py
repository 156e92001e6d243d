"""Columns of ids: which column says whose image it is, and whether its ids are written alike.

An id that is not recognised as one lets a patient into train and test, so what may be such a column is taken,
or asked about, or pointed out; it is never passed over unseen. Messages name columns and lines, never ids.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.tables.csv_file import Row, Table

_PERSON = r"(patient(en)?|pa[cz]iente?|subject|participant)s?"
#: Names of columns, less case and signs, by what they number.
_USUAL = {
    "patient": re.compile(
        r".*(?<!in)(?<!out)(patient|pa[cz]ient).*|.*subj(?!ectiv).*|.*participant.*"
        r"|mrn.*|.*mrn|empi(?!ri).*|.*empi|pid"
        r"|(case|person|individual|client|pat|pt)(u?id|nr|no|num|number|nummer|key|code|name)"
        r"|(medicalrecord|hospital|nhs)(no|number)"
    ),
    "exam": re.compile(
        r"(exam|examination|study)(u?id|nr|no|number|nummer)?|studyinstanceuid|accession(no|number)?|accanon"
    ),
}
#: What is known of a patient and numbers nobody.
_TRAIT = r"(age|sex|gender|birth|dob|weight|size|height|orientation|position|race|ethnic|language|alter)"
#: What one patient has several of, or shares with others.
_OTHER = (
    r"(image|picture|file|view|side|laterality|series|exam|study|scan|visit|encounter|accession"
    r"|class|state|status|type|group|ward|history|comment|consent|diagnosis|count)"
)
_NO_PATIENT = re.compile(
    rf"{_TRAIT}.*|.*{_PERSON}({_TRAIT}|{_OTHER}).*|(n|no|num|number|count|total)(of)?{_PERSON}(?<=s)"
)
_ENDS_LIKE_IDS = re.compile(r".*(id|nr|no|num|number|nummer|key|code)")
#: Share of the rows above which the values of a column join hardly any of them.
_FEW = 0.8


def find_id_column(table: Table, kind: str, taken: Collection[str | None]) -> str | None:
    """Return the one column that has a usual name, if there is one.

    Parameters
    ----------
    table : Table
    kind : {"patient", "exam"}
    taken : collection of str or None
        Columns that say something else.

    Raises
    ------
    TableError
        ``table.format`` if there are several.
    """
    found = [
        column
        for column in table.columns
        if column not in taken
        and _USUAL[kind].fullmatch(plain := _squashed(column))
        and not (kind == "patient" and _NO_PATIENT.fullmatch(plain))
    ]
    if len(found) > 1:
        raise table.error(
            f"several columns may be that of the {kind}",
            line=1,
            expected=f"one of {', '.join(found)}",
            cure=f"say --{kind} COLUMN",
        )
    return found[0] if found else None


def number_ids(table: Table, column: str) -> NDArray[np.int64]:
    """Return a number for each row, equal where the ids are.

    Raises
    ------
    TableError
        ``table.format`` for an empty cell, and for ids that differ in writing only, as 7 and 007 do: they
        would count as two patients.
    """
    ids = [table.text(row, column) for row in table.rows]
    first: dict[str, tuple[str, Row]] = {}
    for text, row in zip(ids, table.rows, strict=True):
        known, where = first.setdefault(_bare(text), (text, row))
        if known != text:
            raise table.error(
                "two ids differ in writing only: in capitals, spaces or leading zeros",
                line=row.line,
                column=column,
                found=f"the other is in line {where.line}",
                cure="write them alike; if they are not the same, let them differ in more than that",
            )
    return np.unique(ids, return_inverse=True)[1].reshape(-1)


def suspected(table: Table, columns: Collection[str]) -> tuple[str, ...]:
    """Return those of the columns that are named like ids and whose values join many rows."""
    found = []
    for column in columns:
        values = {row.cells[column] for row in table.rows}
        if _ENDS_LIKE_IDS.fullmatch(_squashed(column)) and 1 < len(values) <= _FEW * len(table.rows):
            found.append(column)
    return tuple(found)


def _squashed(column: str) -> str:
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKD", column)).casefold()  # less accents, too


def _bare(text: str) -> str:
    """Return an id without what writers and spreadsheets change: case, spaces, leading zeros, a final .0.

    Nor with what nobody sees: characters of Unicode's category of formats.
    """
    seen = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    plain = re.sub(r"\s", "", seen).casefold()
    whole = re.sub(r"^(\d+)\.0*$", r"\1", plain)
    return re.sub(r"(?<!\d)0+(?=\d)", "", whole)
