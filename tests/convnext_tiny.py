"""The tiny ConvNeXt density classifier as a recipe and a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.plain_recipe import plain_recipe

FOLDER = Path(__file__).parent / "data" / "convnext_tiny"
#: Density -> what the checkpoint's own class_descriptions call it, in the order of its weights.
DESCRIPTIONS: dict[str, str] = {
    item["density"]: item["string"] for item in json.loads((FOLDER / "classes.json").read_text())
}
CHECKPOINTS = {"torchvision": "density.ckpt", "timm": "density_timm.pth"}


def recipe(layout: str = "torchvision", **changes: Any) -> dict[str, Any]:
    """The recipe as plain values; `changes` replaces keys at the top, None removes one."""
    own_names = layout == "torchvision"  # the timm file is a bare state dict, which says no names
    options = {"preprocessing": "squash"} if own_names else {
        "preprocessing": "squash", "classes": list(DESCRIPTIONS),
    }  # fmt: skip
    own = {
        "name": "density-tiny",
        "family": "convnext",
        "checkpoint": str(FOLDER / CHECKPOINTS[layout]),
        "model_options": options,
        "door": {"modalities": ["MG"]},
        "relation": "ordinal",
        "groups": {"dense": ["C", "D"], "not dense": ["A", "B"]},
        "findings": [
            {"key": key, "class_name": DESCRIPTIONS[key]} if own_names else {"key": key} for key in "ABCD"
        ],
        "golden": None,
    }
    return plain_recipe(own, changes)


def write_recipe(folder: Path, layout: str = "torchvision", **changes: Any) -> Path:
    """Write ``recipe.yaml`` and return its path; the golden images are those PromptRay ships."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(layout, **changes), sort_keys=False), encoding="utf-8")
    return path
