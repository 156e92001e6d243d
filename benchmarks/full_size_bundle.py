"""Bundles of models with random weights, to time."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.full_size import write_recipe
from promptray.calibrate.pipeline import build


def build_random(
    own: Path,
    write: Callable[[Path], dict[str, Any]],
    prompts: int,
    *,
    cache: Path,
    sections: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint and a recipe, and build ``model.bundle`` of them; return the recipe.

    It is written anew for every run, since one of an older commit would be measured as this one's. The cache
    of stages, whose keys have the code in them, saves the time.

    Parameters
    ----------
    own : Path
        Folder of just this bundle; what was in it goes.
    write : callable
        One of ``benchmarks.full_size``.
    prompts : int
        How many of the pack `padchest192`.
    cache : Path
        Folder of the stages.
    sections : mapping, optional
        More of the recipe.
    """
    recipe = own / "recipe.yaml"
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    torch.manual_seed(0)
    write_recipe(own, write(own), prompts)
    if sections:
        stated = {**yaml.safe_load(recipe.read_text(encoding="utf-8")), **sections}
        recipe.write_text(yaml.safe_dump(stated, sort_keys=False), encoding="utf-8")
    build(recipe, own / "model.bundle", cache=cache)
    return recipe
