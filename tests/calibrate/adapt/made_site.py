"""A site made up: pictures whose class anybody can see, two of each patient, and recipes for them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from tests import convnext_tiny, open_clip_tiny

CLASSES = ("dark", "grey", "bright")
_LEVELS = {"dark": 60, "grey": 120, "bright": 180}
_SIDE = 48


def write_picture(path: Path, name: str, seed: int) -> None:
    """Write a noisy picture whose class is its brightness."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    coarse = rng.normal(_LEVELS[name], 25, (6, 6))
    fine = np.kron(coarse, np.ones((_SIDE // 6, _SIDE // 6))) + rng.normal(0, 6, (_SIDE, _SIDE))
    Image.fromarray(np.clip(fine, 0, 255).astype(np.uint8)).save(path)


def write_images(folder: Path, patients: int, *, per_patient: int = 2) -> list[dict[str, str]]:
    """Write the pictures of so many patients, their classes in turn, and return the rows of their table."""
    rows = []
    for patient in range(patients):
        name = CLASSES[patient % len(CLASSES)]
        for number in range(per_patient):
            file = f"p{patient:03}-{number}.png"
            write_picture(folder / file, name, 1000 * patient + number)
            rows.append({"file": file, "density": name, "patient_id": f"secret-{patient:03}"})
    return rows


def write_table(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """Write rows as CSV; the columns are those of the first."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def zero_shot_recipe(folder: Path, **changes: Any) -> Path:
    """Write the tiny BiomedCLIP's recipe with these classes; its weights are random, so it knows nothing."""
    findings = [{"key": name, "prompt": f"a {name} picture"} for name in CLASSES]
    given = {"door": {"modalities": ["MG"]}, "relation": "ordinal", "findings": findings}
    return open_clip_tiny.write_recipe(folder, **{**given, **changes})


def convnext_recipe(folder: Path, **changes: Any) -> Path:
    """Write the tiny ConvNeXt's recipe with these classes, which are not those of its own head."""
    findings = [{"key": name, "display": name.title()} for name in CLASSES]
    given = {
        "findings": findings,
        "groups": {"not dark": ["grey", "bright"]},
        "examination": {"views": ["L CC", "R CC"], "over_views": "mean", "over_sides": "max"},
        "model_options": {"preprocessing": "squash", "image_size": 64},
    }
    return convnext_tiny.write_recipe(folder, "timm", **{**given, **changes})


def change_recipe(path: Path, **changes: Any) -> None:
    """Replace keys of a recipe in place; None removes one."""
    content = {**yaml.safe_load(path.read_text(encoding="utf-8")), **changes}
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
