"""The tiny CARZero checkpoint as a recipe and a bundle, for tests of everything behind it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock
from PIL import Image

from promptray.export.build import build
from tests.plain_recipe import plain_recipe

FOLDER = Path(__file__).parent / "data" / "carzero_tiny"
PROMPTS: dict[str, str] = json.loads((FOLDER / "prompts.json").read_text(encoding="utf-8"))
GOLDEN = 16


def recipe(**changes: Any) -> dict[str, Any]:
    """The recipe as plain values; `changes` replaces keys at the top, None removes one."""
    own = {
        "name": "carzero-tiny",
        "family": "carzero",
        "checkpoint": str(FOLDER / "CARZero_best_model.ckpt"),
        "text_model": str(FOLDER / "text_model"),
        "door": {"modalities": ["CR", "DX"], "refused_body_parts": ["BREAST"]},
        "findings": [
            {"key": key, "prompt": prompt, "allow_empty": len(prompt.split()) == 1}
            for key, prompt in PROMPTS.items()
        ],
    }
    return plain_recipe(own, changes)


def write_recipe(folder: Path, **changes: Any) -> Path:
    """Write ``recipe.yaml`` and its golden images into `folder` and return the recipe's path."""
    write_golden_images(folder / "golden")
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(**changes), sort_keys=False), encoding="utf-8")
    return path


def write_golden_images(folder: Path) -> None:
    """Cut the fixture's images into as many different small ones as a bundle needs."""
    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(FOLDER / "images" / "square_odd.png") as image:
        for number in range(GOLDEN):
            row, column = divmod(number, 4)
            left, top = column * 250, row * 250
            crop = image.crop((left, top, left + 150 + 7 * number, top + 260 - 5 * number))
            crop.save(folder / f"{number:02}.png")


def shared_bundle(folder: Path, name: str, **changes: Any) -> Path:
    """Build a bundle of the tiny checkpoint below `folder`, once for all test processes that share it."""
    return build_once(folder, name, lambda recipe_folder: write_recipe(recipe_folder, **changes))


def build_once(folder: Path, name: str, recipe: Callable[[Path], Path]) -> Path:
    """Build ``<name>.bundle`` below `folder`, once; `recipe` writes or names its recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / f"{name}.bundle"
    with FileLock(folder / "build.lock"):
        if not output.exists():
            recipe_folder = folder / name
            recipe_folder.mkdir(exist_ok=True)
            build(recipe(recipe_folder), output, cache=folder / "cache")
    return output
