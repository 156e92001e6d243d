"""The tiny ASG checkpoint as recipes and bundles, and checkpoints like it with other weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from promptray.export.checkpoint import load_checkpoint
from promptray.runtime.bundle.image_rules import Door, Preprocessing
from promptray.runtime.door import open_picture
from promptray.runtime.preprocess import preprocess
from tests.carzero_tiny import build_once
from tests.plain_recipe import plain_recipe

FOLDER = Path(__file__).parent / "data" / "asg_tiny"
CHECKPOINT, TEXT_MODEL = FOLDER / "asg.ckpt", FOLDER / "text_model"
IMAGES = ("tall", "wide", "square_odd", "small_upscaled")
#: Reports of several sentences, one a line: what a prompt of ours is.
PROMPTS: dict[str, str] = {
    name: "\n".join(sentences)
    for name, sentences in json.loads((FOLDER / "prompts.json").read_text(encoding="utf-8")).items()
}
TAGS: list[str] = json.loads((FOLDER / "tags.json").read_text(encoding="utf-8"))
GOLDEN = 16


def oracle() -> dict[str, Any]:
    """Return the original's outputs (the fixture's README describes them)."""
    return dict(np.load(FOLDER / "oracle.npz"))


def pixels(rule: Preprocessing) -> NDArray[np.float32]:
    """Return the network's input of `IMAGES` by a rule."""
    door = Door(modalities=["DX"])
    opened = (open_picture(image_path(name), door, rule.greyscale, modality="DX") for name in IMAGES)
    return np.concatenate([preprocess(each.shown, rule).pixels for each in opened])


def planes(pixels: NDArray[np.float32], rule: Preprocessing) -> NDArray[np.float64]:
    """Return the original's three planes of one plane, with ImageNet's mean and deviation of each channel."""
    (mean,), (std,) = rule.normalise.mean, rule.normalise.std
    means, stds = (np.reshape(each, (3, 1, 1)) for each in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    found: NDArray[np.float64] = (pixels.astype(np.float64) * std + mean - means) / stds
    return found


def image_path(name: str) -> Path:
    """Return the file of one of `IMAGES`."""
    return FOLDER / "images" / f"{name}.png"


def recipe(**changes: Any) -> dict[str, Any]:
    """The recipe of the head of prompts alone as plain values; None removes a key."""
    own = {
        "name": "asg-tiny",
        "family": "asg",
        "checkpoint": str(CHECKPOINT),
        "text_model": str(TEXT_MODEL),
        "model_options": {"heads": ["prompts"]},
        "findings": [{"key": key, "prompt": prompt} for key, prompt in PROMPTS.items()],
    }
    return plain_recipe(own, changes)


def tags_recipe(**changes: Any) -> dict[str, Any]:
    """Return what `recipe` takes for the head of tags alone, in another order than the weights'."""
    return {
        "model_options": {"heads": ["tags"]},
        "findings": [{"key": tag} for tag in reversed(TAGS)],
        **changes,
    }


def both_recipe(**changes: Any) -> dict[str, Any]:
    """Return what `recipe` takes for both heads: a prompt has the key of a tag, and no tag is listed."""
    findings = [{"key": key, "prompt": prompt} for key, prompt in PROMPTS.items()]
    return {
        "model_options": None,
        "findings": [*findings, {"key": "pneumothorax", "prompt": "small apical pneumothorax"}],
        **changes,
    }


def without(*stems: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """Return a change of a state dict: keys that begin so are taken out."""
    return lambda state: {key: value for key, value in state.items() if not key.startswith(stems)}


def write_recipe(folder: Path, **changes: Any) -> Path:
    """Write ``recipe.yaml`` and its golden images into `folder`; return the recipe."""
    golden = folder / "golden"
    golden.mkdir(parents=True, exist_ok=True)
    with Image.open(image_path("wide")) as image:
        for number in range(GOLDEN):
            left, top = 9 * number, 5 * number
            image.crop((left, top, left + 150 + 7 * number, top + 260 - 5 * number)).save(
                golden / f"{number:02}.png"
            )
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(**changes), sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def shared_bundle(folder: Path, name: str, **changes: Any) -> Path:
    """Build a bundle of the tiny checkpoint below `folder`, once for all test processes that share it."""
    return build_once(folder, name, lambda recipe_folder: write_recipe(recipe_folder, **changes))


def published_tensors() -> dict[str, Tensor]:
    """Return the fixture's tensors."""
    return dict(load_checkpoint(CHECKPOINT)["state_dict"])


def write_checkpoint(
    folder: Path, change: Callable[[dict[str, Tensor]], Mapping[str, Any]], **beside: Any
) -> Path:
    """Write the fixture's tensors, changed, as a checkpoint with what stands `beside` them."""
    path = folder / "changed.ckpt"
    torch.save({"state_dict": dict(change(published_tensors())), **beside}, path)
    return path


def random_resnet(seed: int) -> dict[str, Tensor]:
    """Return the image side of a ResNet-50 in the published layout: torchvision's names, seeded weights."""
    from promptray.export.torchvision_guard import ensure_torchvision_imports

    ensure_torchvision_imports()
    from torchvision.models import resnet50

    generator = torch.Generator().manual_seed(seed)
    stem = "img_encoder_q."
    shapes = {f"{stem}model.{key}": value.shape for key, value in resnet50().state_dict().items()}
    for name, width, tail in (("global", 2048, ()), ("local", 1024, (1,))):
        head = f"{stem}{name}_embed.head."
        shapes |= {f"{head}0.weight": (160, width, *tail), f"{head}3.weight": (128, 160, *tail)}
        shapes |= dict.fromkeys([f"{head}0.bias", *(f"{head}1.{part}" for part in _NORM)], (160,))
        shapes |= dict.fromkeys([f"{head}3.bias", *(f"{head}4.{part}" for part in _NORM[2:])], (128,))
    return {
        key: _draw(key, shape, generator)
        for key, shape in shapes.items()
        if not key.startswith(f"{stem}model.fc.") and not key.endswith("num_batches_tracked")
    }


_NORM = ("weight", "bias", "running_mean", "running_var")


def _draw(key: str, shape: Any, generator: torch.Generator) -> Tensor:
    draw = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return draw * (2 / draw[0].numel()) ** 0.5
    if key.endswith("running_var"):
        return 0.5 + draw.abs()
    return draw * 0.1 + (1.0 if key.endswith("weight") else 0.0)
