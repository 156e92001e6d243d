"""Write a recipe that makes a student of the reference model, and gates it.

    python -m reference.student --data DATA --out FOLDER
    promptray build FOLDER/recipe.yaml -o student.bundle

DATA holds ``cxr/labels.csv``. The student learns from the radiographs of children that its teacher was
trained on, without their labels. It is gated on frontal radiographs of adults from two other sources, the
only ones of that table that the teacher never saw. FOLDER gets the recipe and two tables.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from reference.radiographs import LICENCE, SOURCE, read_radiographs

REFERENCE = Path(__file__).parent
SETTINGS = REFERENCE / "student.yaml"
OTHERS = ("covid-chestxray-dataset", "nih-chestxray14")
FRONTAL = ("PA", "AP", "AP Supine")
#: Of what is called pneumonia in the table; of which kind one is, is not said.
KNOWN = {"1": {"pneumonia": 1, "no pneumonia": 0}, "0": {"pneumonia": 0, "no pneumonia": 1}}


def frontal_adults(data: Path) -> list[dict[str, str]]:
    """Return the rows of frontal images from the other sources."""
    with (data / "cxr" / "labels.csv").open(newline="", encoding="utf-8") as table:
        return [row for row in csv.DictReader(table) if row["source"] in OTHERS and row["view"] in FRONTAL]


def write(data: Path, folder: Path) -> Path:
    """Write recipe and tables, and return the recipe's path."""
    folder.mkdir(parents=True, exist_ok=True)
    images = (data / "cxr").resolve()
    learned = [
        {"file": each.path.resolve().relative_to(images).as_posix(), "patient_id": each.patient}
        for each in read_radiographs(data)
    ]
    held = [
        {"file": row["file"], "patient_id": row["patient_id"], **KNOWN.get(row["pneumonia"], {})}
        for row in frontal_adults(data)
    ]
    _write_table(folder / "learn.csv", ["file", "patient_id", "modality"], learned)
    _write_table(folder / "gate.csv", ["file", "patient_id", "modality", "pneumonia", "no pneumonia"], held)
    recipe: dict[str, Any] = yaml.safe_load((REFERENCE / "recipe.yaml").read_text(encoding="utf-8"))
    recipe |= {name: str((REFERENCE / recipe[name]).resolve()) for name in ("checkpoint", "text_model")}
    recipe["distil"] = {
        **yaml.safe_load(SETTINGS.read_text(encoding="utf-8")),
        "images": str(images),
        "labels": "learn.csv",
        "source": f"{SOURCE}, {LICENCE}",
    }
    recipe["gate"] = {
        "images": str(images),
        "labels": "gate.csv",
        "source": f"frontal radiographs of {' and '.join(OTHERS)}",
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def _write_table(path: Path, columns: list[str], rows: Iterable[Mapping[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, restval="")
        table.writeheader()
        table.writerows({"modality": "DX", **row} for row in rows)


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds cxr/labels.csv")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    sys.stdout.write(f"{write(options.data, options.out)}\n")


if __name__ == "__main__":
    main()
