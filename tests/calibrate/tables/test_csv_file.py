"""What is wrong with a CSV is said with file, line, column and cure; what is harmless is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptray.calibrate.tables.csv_file import TableError, read_table

PLAIN = "file,a\nfilm 1.png,1\nfilm 2.png,0\n"


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused(folder: Path, content: str | bytes) -> TableError:
    with pytest.raises(TableError) as caught:
        read_table(write(folder, content))
    return caught.value


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        "\ufeff" + PLAIN,
        '"file","a"\n"film 1.png","1"\n"film 2.png","0"\n',
        "file , a\n film 1.png , 1\n film 2.png , 0\n",
        PLAIN.rstrip("\n"),
        PLAIN + "\n\n",
        PLAIN.replace("\n", ",,\n"),
    ],
    ids=[
        "plain",
        "CRLF",
        "CR",
        "BOM",
        "quoted",
        "spaces",
        "no last line end",
        "empty lines",
        "empty columns",
    ],
)
def test_what_programs_write_is_read_alike(tmp_path: Path, content: str) -> None:
    table = read_table(write(tmp_path, content))
    assert table.columns == ("file", "a")
    assert [row.cells for row in table.rows] == [
        {"file": "film 1.png", "a": "1"},
        {"file": "film 2.png", "a": "0"},
    ]
    assert [row.line for row in table.rows] == [2, 3]


def test_commas_quotes_and_line_ends_live_in_quotes(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, 'file,note\n"a, ""b"".png","two\nlines"\nc.png,x\n'))
    assert [row.cells["file"] for row in table.rows] == ['a, "b".png', "c.png"]
    assert [row.line for row in table.rows] == [3, 4]


@pytest.mark.parametrize(
    ("content", "place", "message"),
    [
        ("", "table.csv", "the file is empty"),
        ("\n \n", "table.csv", "the file is empty"),
        ("file,a\n", "table.csv, line 1", "a header and no row"),
        ("file;a\nx.png;1\n", "table.csv, line 1", "not separated by commas"),
        ("file\ta\nx.png\t1\n", "table.csv, line 1", "not separated by commas"),
        ("file,a,a\nx.png,1,1\n", "table.csv, line 1, column a", "the same name"),
        ("file,,a\nx.png,1,1\n", "table.csv, line 1", "no name"),
        ("file,a,\nx.png,1,\ny.png,1,2\n", "table.csv, line 3", "a column that has no name"),
        (",\nx.png,1\n", "table.csv, line 1", "names no column"),
        ("file,a\nx.png,1\ny.png\n", "table.csv, line 3", "another number of cells"),
        ("file,a\nx.png,1,0\n", "table.csv, line 2", "another number of cells"),
        ('file,a\n"x.png,1\n', "table.csv, line 2", "not valid CSV"),
        ('file,a\n"x"y.png,1\n', "table.csv, line 2", "not valid CSV"),
        ("file,a\nx.png,1\n".encode("utf-16"), "table.csv, line 1", "not UTF-8"),
        ("file,a\nx.png,1\nJosé.png,1\n".encode("latin-1"), "table.csv, line 3", "not UTF-8"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: str | bytes, place: str, message: str) -> None:
    error = refused(tmp_path, content)
    assert (error.code, error.artefact) == ("table.format", place)
    assert message in error.message
    assert error.cure


def test_a_cell_that_is_no_number_is_named_but_not_repeated(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "file,a\nx.png,Jane Doe\n"))
    with pytest.raises(TableError) as caught:
        table.number(table.rows[0], "a")
    assert caught.value.artefact == "table.csv, line 2, column a"
    assert "Jane" not in str(caught.value)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1,5", "0x10", "1e999", ""])
def test_only_finite_numbers_are_numbers(tmp_path: Path, text: str) -> None:
    table = read_table(write(tmp_path, f'file,a\nx.png,"{text}"\n'))
    with pytest.raises(TableError, match="line 2, column a"):
        table.number(table.rows[0], "a")


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"line 1, column patient\); expected .* found columns file, a\."):
        read_table(write(tmp_path, PLAIN)).require("file", "patient")


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.csv"):
        with pytest.raises(TableError) as caught:
            read_table(path)
        assert caught.value.code == "table.not-found"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(TableError, match=r"table\.not-found"):
        read_table(tmp_path / "pipe.csv")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_a_refusal(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path, content)
    try:
        table = read_table(path)
    except TableError:
        return
    assert table.rows
    assert all(set(row.cells) == set(table.columns) for row in table.rows)
