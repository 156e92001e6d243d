"""Names reach the terminal as they are written, but for what would steer it."""

from __future__ import annotations

import pytest

from promptray.cli.output import print_table, progress, refuse, written
from promptray.runtime.bundle.manifest import Finding
from promptray.runtime.errors import ImageError

NAME = "[red]film:warning:.png"


def test_a_table_shows_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(f"title {NAME}", [f"column {NAME}"], [[f"cell {NAME}"]])
    shown = capsys.readouterr().out
    assert all(f"{place} {NAME}" in shown for place in ("title", "column", "cell"))


@pytest.mark.parametrize("char", ["\x1b", "\x07", "\x9b", "\u202e", "\udcff"])
def test_what_would_steer_the_terminal_is_written_out(capsys: pytest.CaptureFixture[str], char: str) -> None:
    name, shown = f"a{char}[2Jb.png", f"a{ascii(char)[1:-1]}[2Jb.png"
    print_table("Scores", [name], [[name]])
    refuse(ImageError("image.broken", f"of {name}", artefact=name))
    out, err = capsys.readouterr()
    assert out.count(shown) == err.count(shown) == 2
    assert char not in out + err


def test_a_table_keeps_line_feeds_and_letters_of_every_script(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("Scores", ["name"], [["épanchement\n胸水"]])
    shown = capsys.readouterr().out
    assert "épanchement" in shown
    assert "胸水" in shown
    assert "\\" not in shown


def test_a_long_wording_is_shortened_for_people() -> None:
    finding = Finding(key="a", display="a", prompts=["x" * 500, "y"], negative_prompts=["z" * 500], head="h")
    assert written(finding) == f"{'x' * 119}…; y (not: {'z' * 119}…)"


def test_progress_on_a_terminal_shows_names_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress(f"building {NAME}") as report:
        report("load", f"hashing {NAME}", 0.5)
        report("score", "\x1b[2J", 1.0)
    shown = capsys.readouterr().err
    assert f"building {NAME}" in shown
    assert " 50 % " in shown
    assert f"load: hashing {NAME}" in shown
    assert r"score: \x1b[2J" in shown


def test_a_table_is_no_wider_than_its_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    rows = [["long " * 40, "1.5"], ["short", "22.5"]]
    print_table("Scores", ["name", "score"], rows, right=(1,))
    assert max(map(len, capsys.readouterr().out.splitlines())) > 200  # a pipe's reader wants a line a row
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_table("Scores", ["name", "score"], rows, right=(1,))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[-1].endswith("  22.5")
    assert sum(line.count("long") for line in lines) == 40


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its last item is the time that progress sees."""
    now = [100.0]
    monkeypatch.setattr("promptray.cli.output.monotonic", lambda: now[-1])
    return now


def test_progress_in_a_log_is_a_line_a_second(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with progress("scoring") as report:
        for number in range(1, 1001):
            clock.append(100 + number / 100)
            report("score", f"{number} of 1000", number / 1000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "  0% score: 1 of 1000"
    assert lines[-1] == "100% score: 1000 of 1000"
    assert len(lines) == 11


def test_progress_in_a_log_names_every_stage_once(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    with progress("building") as report:
        for stage, fraction in (("load", 0.0), ("export", 0.1), ("bundle", 0.97)):
            report(stage, f"{stage} begins", fraction)
            report(stage, f"{stage} goes on", fraction)
        report("bundle", "done", 1.0)
        report("bundle", "done", 1.0)
    stages = [line.split()[1] for line in capsys.readouterr().err.splitlines()]
    assert stages == ["load:", "export:", "bundle:", "bundle:"]
