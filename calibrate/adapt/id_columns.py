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

#: Words for the person an image is of; short ones number a person only beside a word of ids.
_PERSON = r"(patient(en)?|pa[cz]iente?|u?subj(ect)?|participant|person|individual|mrn|empi|pid)"
_SHORT = r"(case|client|pat|pt)"
_ID = r"(u?id|nr|no|num|number|nummer|key|code|name|hash|anon|deid|pseudo(nym)?)"
#: Names of columns, less case and signs, by what they number. What is known of a patient numbers nobody.
_USUAL = {
    "patient": re.compile(
        rf"{_PERSON}|{_PERSON}s?{_ID}+|{_ID}+{_PERSON}{_ID}*|{_SHORT}{_ID}|(medicalrecord|hospital|nhs)(no|number)"
    ),
    "exam": re.compile(
        r"(exam|examination|study)(u?id|nr|no|number|nummer)?|studyinstanceuid|accession(no|number)?|accanon"
    ),
}
#: DICOM's name of an exam, alone in the world; its StudyID is not, and an AccessionNumber may be empty.
_UID = "studyinstanceuid"
#: What may number people all the same: a name with a person in it, or a last word like those of ids.
_OF_A_PERSON = re.compile(r"(?<!in)(?<!out)(patient|pa[cz]ient)|subj(?!ectiv)|participant|mrn|empi(?!ri)")
_ID_WORD = re.compile(r"u?id|nr|no|num|key|code|.*(number|nummer)")
#: Share of the rows above which the values of a column join hardly any of them.
_FEW = 0.8
_SHOWN = 10  # lines that a message lists


def find_id_column(table: Table, kind: str, taken: Collection[str | None], *, ask: bool = True) -> str | None:
    """Return the one column that has a usual name, if there is one. Of exams the UID is before all else.

    An archive leaves AccessionNumber empty where the exam was not ordered. So a column of exams without any
    id is none; one with some ids is none either where patients are known, who hold their exams together.

    Parameters
    ----------
    table : Table
    kind : {"patient", "exam"}
    taken : collection of str or None
        Columns that say something else.
    ask : bool
        Whether several are refused; else none of them is taken, and no column with an empty cell.

    Raises
    ------
    TableError
        ``table.format`` if there are several.
    """
    plain = {column: "".join(_words(column)) for column in table.columns if column not in taken}
    found = [column for column, name in plain.items() if _USUAL[kind].fullmatch(name)]
    found = [column for column in found if plain[column] == _UID] or found
    if len(found) > 1 and not ask:
        return None
    if len(found) > 1:
        raise table.error(
            f"several columns may be that of the {kind}",
            line=1,
            expected=f"one of {', '.join(found)}",
            cure=f"say --{kind} COLUMN",
        )
    if found and kind == "exam":
        empty = [not row.cells[found[0]] for row in table.rows]
        if all(empty) or (any(empty) and not ask):
            return None
    return found[0] if found else None


def number_ids(table: Table, column: str, *, zeros: bool = False) -> NDArray[np.int64]:
    """Return a number for each row, equal where the ids are.

    Parameters
    ----------
    table : Table
    column : str
    zeros : bool
        Whether ids may differ in leading zeros alone, and in a final ``.0``.

    Raises
    ------
    TableError
        ``table.format`` for empty cells, naming their lines, and for ids that differ in writing only, as 7
        and 007 do: they would count as two patients.
    """
    empty = [row.line for row in table.rows if not row.cells[column]]
    if empty:
        lines = ", ".join(map(str, empty[:_SHOWN])) + (" ..." if len(empty) > _SHOWN else "")
        raise table.error(
            "rows have no id",
            line=empty[0],
            column=column,
            expected="an id in every row",
            found=f"{len(empty)} of {len(table.rows)} empty: line {lines}",
            cure="fill them, delete these rows, or take the column out of the table if it tells nothing",
        )
    ids = [row.cells[column] for row in table.rows]
    first: dict[str, tuple[str, Row]] = {}
    for text, row in zip(ids, table.rows, strict=True):
        known, where = first.setdefault(_bare(text, zeros=zeros), (text, row))
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
    """Return those of the columns that may number people, by their names, and whose values join many rows."""
    found = []
    for column in columns:
        values, words = {row.cells[column] for row in table.rows}, _words(column)
        named = _OF_A_PERSON.search("".join(words)) or any(map(_ID_WORD.fullmatch, words[-1:]))
        if named and 1 < len(values) <= _FEW * len(table.rows):
            found.append(column)
    return tuple(found)


def _words(column: str) -> list[str]:
    """Return the words of a column's name, less case and accents: PatientID is two, covid is one."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", column) if not unicodedata.combining(c))
    return re.sub(r"[\W_]+|(?<=[a-z\d])(?=[A-Z])", " ", plain).casefold().split()


def _bare(text: str, *, zeros: bool) -> str:
    """Return an id without what writers and spreadsheets change: case, spaces, leading zeros, a final .0.

    Nor with what nobody sees: characters of Unicode's category of formats. Zeros behind a point count: 1.05
    is not 1.5, neither as a number nor in a UID.
    """
    seen = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    plain = re.sub(r"\s", "", seen).casefold()
    if zeros:
        return plain
    whole = re.sub(r"^(\d+)\.0*$", r"\1", plain)
    return re.sub(r"(?<![\d.])0+(?=\d)", "", whole)
