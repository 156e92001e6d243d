"""What docs/adaptation.md says of options, labels and Python is what there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from promptray.calibrate.adapt.cases import Columns, read_cases
from promptray.calibrate.adapt.fine_tune import FineTuning
from promptray.calibrate.adapt.measures import LEAST_CLASS_UNITS
from promptray.calibrate.adapt.recommend import LEAST_UNITS
from promptray.calibrate.adapt.run import Settings
from promptray.calibrate.adapt.split import LEAST
from promptray.cli import cli
from tests.calibrate.adapt.made_site import convnext_recipe, write_images, write_table

PAGE = (Path(__file__).parents[3] / "docs" / "adaptation.md").read_text(encoding="utf-8")
COMMANDS = [line.strip() for line in PAGE.splitlines() if line.startswith("    promptray ")]
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_commands_and_options_are_real() -> None:
    assert COMMANDS
    for line in COMMANDS:
        _, name, *arguments = shlex.split(line)
        cli.get_command(None, name).make_context(name, list(arguments))  # type: ignore[arg-type,union-attr]
    known = {option for parameter in cli.get_command(None, "adapt").params for option in parameter.opts}  # type: ignore[arg-type,union-attr]
    assert set(re.findall(r"`(--[a-z-]+)", PAGE)) <= {*known, "--json"}


def test_defaults_are_those_of_the_code() -> None:
    training, settings = FineTuning(), Settings()
    for said in (
        f"AdamW at {training.rate:g}".replace("1e-04", "1e-4").replace("0.0001", "1e-4"),
        f"weight decay {training.weight_decay:g}",
        f"batches of {training.batch} ",
        f"smoothing {training.smoothing:g} ",
        f"at most {training.epochs} epochs",
        f"After {training.patience} epochs",
        f"after {training.stop} (`--patience`)",
        f"`--test` ({settings.test:g}) and `--val` ({settings.val:g})",
        f"{settings.draws} (`--draws`)",
        f"fewer than {LEAST_CLASS_UNITS} units have",
        f"fewer than {LEAST_UNITS} units in the test part",
        f"needs {LEAST['train']} images in train and {LEAST['test']} in test",
    ):
        assert said in PAGE.replace("\n", " "), said
    assert training.factor == 0.5  # "halved"


def test_the_example_of_labels_is_read(tmp_path: Path) -> None:
    (example,) = re.findall(r"```csv\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "labels.csv").write_text(example)
    columns = Columns("density", group="scanner", split="part")
    cases = read_cases(tmp_path / "labels.csv", ("A", "C"), {"A": "A", "C": "C"}, columns)
    assert cases.columns == {"patient": "patient_id", "exam": "exam_id", "group": "scanner"}
    assert cases.parts == ["train", "train", "test"]
    assert cases.unlabelled == 1


def test_the_example_in_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(tmp_path / "labels.csv", write_images(tmp_path / "films", 30, per_patient=1))
    convnext_recipe(tmp_path).rename(tmp_path / "density.yaml")
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLE, "docs/adaptation.md", "exec"), {})
    said = capsys.readouterr().out
    assert "The probe is the only stage" in said
    assert "probe Estimate(value=" in said
