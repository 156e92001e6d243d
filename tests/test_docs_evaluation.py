"""The examples of docs/evaluation.md run, and what it says of published numbers is what is shipped."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from promptray.calibrate.published import published_names, read_published
from promptray.calibrate.tables.labels import read_labels
from promptray.calibrate.tables.scores import read_scores
from promptray.cli import cli
from tests.promptray.labelled_samples import NAMES, SAMPLES, write_labels

PAGE = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text(encoding="utf-8")
CONVERSION, IN_PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line.strip() for line in PAGE.splitlines() if line.startswith("    promptray ")]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_option_of_a_command_is_one(line: str) -> None:
    _, name, *arguments = shlex.split(line)
    command = cli.get_command(None, name)  # type: ignore[arg-type]
    command.make_context(name, list(arguments))


def test_options_that_the_text_names_are_there() -> None:
    known = {
        option
        for name in ("evaluate", "compare")
        for parameter in cli.get_command(None, name).params  # type: ignore[arg-type,union-attr]
        for option in parameter.opts
    }
    assert set(re.findall(r"`(--[a-z-]+)", PAGE)) <= known


def test_the_example_of_labels_is_read(tmp_path: Path) -> None:
    (example,) = re.findall(r"```csv\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "labels.csv").write_text(example)
    labels = read_labels(tmp_path / "labels.csv", ["pneumonia", "pleural effusion"])
    assert labels.keys == ("pneumonia", "pleural effusion")
    assert labels.clustered
    assert labels.sources == ["north", "north", "south"]


def test_the_published_numbers_are_those_that_are_shipped() -> None:
    table = read_published("carzero-chestxray14")
    for value in table.auroc.values():
        assert f"| {value:.3f} |".replace("0.", ".") in PAGE
    assert f"**{table.macro_auroc:.3f}**".replace("0.", ".") in PAGE
    assert all(f"`{name}`" in PAGE or f"--published {name}" in PAGE for name in published_names())


def test_third_party_scores_become_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = ["Path", "/data/images_006/00011997_000.png", "/data/images_006/00011997_001.png"]
    (tmp_path / "chestxray14_test_image.csv").write_text("\n".join(images) + "\n")
    columns = [",".join(map(str, range(14))), *(",".join(f"{row}.{n}" for n in range(14)) for row in (1, 2))]
    (tmp_path / "ChestXray14.csv").write_text("\n".join(columns) + "\n")
    monkeypatch.chdir(tmp_path)
    exec(compile(CONVERSION, "docs/evaluation.md", "exec"), {})
    found = read_scores(tmp_path / "theirs.csv")
    assert found.names == ["00011997_000.png", "00011997_001.png"]
    assert found.keys[:2] == ("atelectasis", "cardiomegaly")
    assert found.raw()[1, :2].tolist() == [2.0, 2.1]


def test_the_example_in_python_prints_every_finding(
    reference_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "films").mkdir()
    for name in NAMES:
        shutil.copy(SAMPLES / name, tmp_path / "films")
    write_labels(tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(compile(IN_PYTHON.replace("chest.bundle", str(reference_bundle)), "docs/evaluation.md", "exec"), {})
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert said[0].startswith("pneumonia evaluated Estimate(value=")
