from __future__ import annotations

import csv
from pathlib import Path

import yaml

from promptray.calibrate.distil.settings import read_settings
from promptray.calibrate.pipeline.recipe import BuildRecipe, check_sections
from promptray.export.recipe import read_recipe_as
from reference.student import SETTINGS, write

COLUMNS = ["image_id", "file", "group", "pneumonia", "view", "patient_id", "source", "source_file", "licence"]
KERMANY = ["kermany-guangzhou", "x.jpeg", "CC BY 4.0"]
COVID, NIH = ([name, "y.png", "CC BY-SA"] for name in ("covid-chestxray-dataset", "nih-chestxray14"))
ROWS = [
    ["c1", "images/c1.jpg", "normal", "0", "AP", "kermany-1", *KERMANY],
    ["c2", "images/c2.jpg", "pneumonia-viral", "1", "AP", "kermany-2", *KERMANY],
    ["a1", "images/a1.jpg", "covid-19", "1", "PA", "covid-1", *COVID],
    ["a2", "images/a2.jpg", "normal", "0", "AP Supine", "nih-1", *NIH],
    ["a3", "images/a3.jpg", "nih-other", "", "PA", "nih-2", *NIH],
    ["a4", "images/a4.jpg", "covid-19", "1", "L", "covid-1", *COVID],
]  # fmt: skip


def made(folder: Path) -> Path:
    data = folder / "data" / "cxr"
    data.mkdir(parents=True)
    with (data / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *ROWS])
    return write(folder / "data", folder / "out")


def table(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def test_the_student_learns_from_children_and_is_gated_on_frontal_adults(tmp_path: Path) -> None:
    path = made(tmp_path)
    assert table(path.parent / "learn.csv") == [
        ["images/c1.jpg", "kermany-1", "DX"],
        ["images/c2.jpg", "kermany-2", "DX"],
    ]
    assert table(path.parent / "gate.csv") == [
        ["images/a1.jpg", "covid-1", "DX", "1", "0"],
        ["images/a2.jpg", "nih-1", "DX", "0", "1"],
        ["images/a3.jpg", "nih-2", "DX", "", ""],
    ]


def test_the_recipe_is_one_and_holds_the_limits_of_students(tmp_path: Path) -> None:
    path = made(tmp_path)
    recipe = read_recipe_as(path, BuildRecipe)
    assert recipe.distil is not None
    assert recipe.distil.settings == read_settings(yaml.safe_load(SETTINGS.read_text(encoding="utf-8")))
    check_sections(recipe, path.name, ["findings"], text=True)
    assert recipe.quantise is None
    assert recipe.gate is not None
    assert recipe.gate.limits == type(recipe.gate.limits)()
