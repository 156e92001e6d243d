"""The tiny BiomedCLIP's image tower with a seeded classifier of four densities, as a recipe and a bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import yaml
from torch import Tensor

from promptray.export.checkpoint import load_checkpoint, tensors
from tests import open_clip_arithmetic as arithmetic
from tests.open_clip_tiny import CONFIG, FOLDER, WEIGHTS
from tests.plain_recipe import plain_recipe

NAME = "probe.safetensors"
#: In the order of the published probe's weights, which is not the scale's.
ORDER = ["B", "A", "D", "C"]
HEADS = 4
OPTIONS = {"preprocessing": "density-study", "image_heads": HEADS}


def tuned_state(seed: int = 5, classes: int = len(ORDER)) -> dict[str, Tensor]:
    """Return the layout's tensors: the fixture's image tower and a seeded classifier on it."""
    published = dict(tensors(load_checkpoint(FOLDER / WEIGHTS)))
    state = {key: value.clone() for key, value in published.items() if key.startswith("visual.")}
    width, draw = state["visual.head.proj.weight"].shape[0], torch.Generator().manual_seed(seed)
    state["classifier.weight"] = torch.randn(classes, width, generator=draw)
    state["classifier.bias"] = torch.randn(classes, generator=draw)
    return state


def write_tuned(folder: Path, state: dict[str, Tensor], classes: object = ORDER) -> Path:
    """Write the file and the configuration beside it; return its path. `classes` None: not stated."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(FOLDER / CONFIG, folder / CONFIG)
    texts = None if classes is None else {"classes": json.dumps(classes)}
    safetensors.torch.save_file(state, folder / NAME, texts)
    return folder / NAME


def plain_logits(state: dict[str, Tensor], pixels: Tensor, heads: int = HEADS) -> Tensor:
    """Return the logits, float64 (B, K), in the order of the weights: no module of any library."""
    embedding = arithmetic.projected_tokens(state, pixels, heads)[:, 0]
    return embedding @ state["classifier.weight"].double().T + state["classifier.bias"].double()


def recipe(**changes: Any) -> dict[str, Any]:
    """The recipe as plain values, A to D as a scale; None removes a key."""
    own = {
        "name": "density-probe-tiny",
        "family": "open_clip",
        "checkpoint": NAME,
        "model_options": OPTIONS,
        "door": {"modalities": ["MG"]},
        "relation": "ordinal",
        "groups": {"dense": ["C", "D"]},
        "findings": [{"key": key} for key in "ABCD"],
        "golden": None,
    }
    return plain_recipe(own, changes)


def write_recipe(folder: Path, **changes: Any) -> Path:
    """Write the model, a vocabulary and ``recipe.yaml`` beside it; golden images are PromptRay's."""
    write_tuned(folder, tuned_state())
    shutil.copy(FOLDER / "vocab.txt", folder)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(**changes), sort_keys=False), encoding="utf-8")
    return path
