"""Lines end where a line ends, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptray.calibrate.tables.text_lines import read_lines


@pytest.mark.parametrize("odd", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_only_line_ends_end_a_line(tmp_path: Path, odd: str) -> None:
    (tmp_path / "text").write_bytes(f"\ufeffa{odd}b\r\n\nlast".encode())
    assert read_lines(tmp_path / "text") == [f"a{odd}b", "", "last"]


@pytest.mark.parametrize(("content", "lines"), [(b"", []), (b"\n", [""]), (b"a\n", ["a"]), (b"a", ["a"])])
def test_the_end_of_the_last_line_begins_no_other(tmp_path: Path, content: bytes, lines: list[str]) -> None:
    (tmp_path / "text").write_bytes(content)
    assert read_lines(tmp_path / "text") == lines
