"""Read a CSV so that whatever is wrong with it is named: file, line, column, and the cure.

UTF-8 (with or without a byte order mark), commas, any line ends, quotes as RFC 4180 has them, one header
line, unique column names, as many cells in each row as in the header. Nameless columns at the right end
must be empty and are dropped: spreadsheets and the NIH write such. Cells lose the white space around them.
Values are never repeated in messages: they may be names of patients.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import stat
from dataclasses import dataclass
from pathlib import Path

from promptray.runtime.errors import PromptRayError

_LIMIT_BYTES = 2**29
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


class TableError(PromptRayError):
    """A CSV of labels, scores or boxes was refused."""


@dataclass(frozen=True)
class Row:
    """One row: the line of the file on which it ends, counted from 1, and its cells by column."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A CSV as text.

    Attributes
    ----------
    name : str
        Base name of the file.
    sha256 : str
        Of its bytes.
    columns : tuple of str
        As in the header.
    rows : list of Row
        At least one.
    """

    name: str
    sha256: str
    columns: tuple[str, ...]
    rows: list[Row]

    def require(self, *columns: str) -> None:
        """Refuse the table if a column is missing."""
        for column in columns:
            if column not in self.columns:
                raise self.error(
                    "a column is missing",
                    line=1,
                    column=column,
                    expected=f"a column named {column}",
                    found=f"columns {', '.join(self.columns)}",
                    cure="give the column this name in the first line, as docs/evaluation.md shows",
                )

    def text(self, row: Row, column: str) -> str:
        """Return a cell that must not be empty."""
        if not row.cells[column]:
            raise self.error(
                "a cell is empty", line=row.line, column=column, cure="fill it, or delete the row"
            )
        return row.cells[column]

    def number(self, row: Row, column: str) -> float:
        """Return a cell that must be a finite number with a decimal point."""
        text = self.text(row, column)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.error(
                "a cell is not a number",
                line=row.line,
                column=column,
                expected="a finite number with a decimal point, for example -2.5",
                cure="correct the cell; a decimal comma must become a point",
            )
        return value

    def error(
        self,
        message: str,
        *,
        line: int | None = None,
        column: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        cure: str | None = None,
        code: str = "table.format",
    ) -> TableError:
        """Return the refusal of this table that names file, line and column."""
        return _error(self.name, message, line, column, expected, found, cure, code)


def read_table(path: Path) -> Table:
    """Read a CSV with a header line.

    Raises
    ------
    TableError
        ``table.not-found``, or ``table.format`` with file, line, column, what was expected, and the cure.
    """
    content = _bytes(path)
    name = path.name
    if not content.strip():
        raise _error(name, "the file is empty", cure="write a header line and a row per image")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        cure = "save it as 'CSV UTF-8'"
        raise _error(name, "the file is not UTF-8 text", line, expected="UTF-8", cure=cure) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [cell.strip() for cell in next(reader)]
        width = len(header)
        while header and not header[-1]:
            header.pop()
        columns = tuple(header)
        _check_header(name, columns)
        rows = [
            Row(reader.line_num, _cells(name, reader.line_num, columns, width, cells))
            for cells in reader
            if cells
        ]
    except csv.Error as error:
        cure = "correct the quotes of this line"
        raise _error(name, f"not valid CSV: {error}", reader.line_num, cure=cure) from None
    if not rows:
        raise _error(name, "the file has a header and no row", 1, cure="write a row per image")
    return Table(name, hashlib.sha256(content).hexdigest(), columns, rows)


def _bytes(path: Path) -> bytes:
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):  # a pipe would hang
            raise _error(path.name, "this is no ordinary file", code="table.not-found")
        if facts.st_size > _LIMIT_BYTES:
            expected = f"at most {_LIMIT_BYTES >> 20} MiB"
            raise _error(path.name, "the file is too large", expected=expected, cure="split it")
        return path.read_bytes()
    except OSError as error:
        reason = f"the file cannot be read: {error.strerror}"
        raise _error(path.name, reason, cure="check the path", code="table.not-found") from None


def _check_header(name: str, columns: tuple[str, ...]) -> None:
    if not columns:
        raise _error(name, "the first line names no column", 1, cure="write a header line")
    for separator, called in _OTHER_SEPARATORS.items():
        if len(columns) == 1 and separator in columns[0]:
            cure = "save it again with commas between the cells"
            raise _error(
                name, "the cells are not separated by commas", 1, expected="commas", found=called, cure=cure
            )
    for number, column in enumerate(columns):
        if not column:
            cure = f"name column {number + 1} in the first line, or delete it"
            raise _error(name, "a column has no name", 1, cure=cure)
        if column in columns[:number]:
            raise _error(
                name, "two columns have the same name", 1, column, cure="rename or delete one of them"
            )


def _cells(name: str, line: int, columns: tuple[str, ...], width: int, cells: list[str]) -> dict[str, str]:
    if len(cells) != width:
        raise _error(
            name,
            "a row has another number of cells than the header",
            line,
            expected=f"{width} cells",
            found=f"{len(cells)}",
            cure="put quotes around a cell that holds a comma, and write empty cells as well",
        )
    if any(cell.strip() for cell in cells[len(columns) :]):
        cure = "name the column in the first line, or delete it"
        raise _error(name, "a cell is in a column that has no name", line, cure=cure)
    return {column: cell.strip() for column, cell in zip(columns, cells, strict=False)}


def _error(
    name: str,
    message: str,
    line: int | None = None,
    column: str | None = None,
    expected: str | None = None,
    found: str | None = None,
    cure: str | None = None,
    code: str = "table.format",
) -> TableError:
    place = name + (f", line {line}" if line else "") + (f", column {column}" if column else "")
    return TableError(code, message, artefact=place, expected=expected, found=found, cure=cure)
