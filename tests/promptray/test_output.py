"""Names reach the terminal as they are written: rich's own marks in them are no marks."""

from __future__ import annotations

import pytest

from promptray.cli.output import print_table, progress

NAME = "[red]film:warning:.png"


def test_a_table_shows_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(f"title {NAME}", [f"column {NAME}"], [[f"cell {NAME}"]])
    shown = capsys.readouterr().out
    assert all(f"{place} {NAME}" in shown for place in ("title", "column", "cell"))


def test_progress_on_a_terminal_shows_names_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "120"}.items():
        monkeypatch.setenv(name, value)
    with progress(f"building {NAME}") as report:
        report("load", f"hashing {NAME}", 0.5)
    assert f"hashing {NAME}" in capsys.readouterr().err
