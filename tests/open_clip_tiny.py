"""The tiny BiomedCLIP folder as recipes and bundles, and folders like it with other sizes and weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor

from tests.carzero_tiny import build_once
from tests.plain_recipe import plain_recipe

FOLDER = Path(__file__).parent / "data" / "biomedclip_tiny"
WEIGHTS = "open_clip_pytorch_model.bin"
CONFIG = "open_clip_config.json"
IMAGES = ("tall", "wide", "square", "small_upscaled")
#: One list of filled templates for each class, in the oracle's order.
CLASSES: dict[str, list[str]] = {
    each["name"]: [template.format(each["name"]) for template in each["templates"]]
    for each in json.loads((FOLDER / "prompts.json").read_text(encoding="utf-8"))
}
TEXTS = [text for texts in CLASSES.values() for text in texts]
#: Positive and negative texts of each pair, as places in `TEXTS`.
PAIRS: dict[str, tuple[list[int], list[int]]] = {
    "one against one": ([0], [6]),
    "two against one": ([1, 2], [8]),
    "one against three": ([7], [3, 4, 5]),
}
#: What the original and a float32 computation of it may differ by (the fixture's README).
RAW, UNIT, LOGIT, SOFTMAX = 2e-5, 2e-6, 2e-4, 2e-5
GOLDEN = 16


def oracle() -> dict[str, Any]:
    """Return open_clip's outputs for `IMAGES` and `TEXTS` (the fixture's README describes them)."""
    return dict(np.load(FOLDER / "oracle.npz"))


def image_path(name: str) -> Path:
    """Return the file of one of `IMAGES`."""
    return FOLDER / "images" / f"{name}.png"


def recipe(**changes: Any) -> dict[str, Any]:
    """The recipe as plain values, findings as alternatives; None removes a key."""
    own = {
        "name": "biomedclip-tiny",
        "family": "biomedclip",
        "checkpoint": str(FOLDER / WEIGHTS),
        "findings": [{"key": name, "prompt": texts} for name, texts in CLASSES.items()],
        "relation": "exclusive",
    }
    return plain_recipe(own, changes)


def pair_findings() -> list[dict[str, Any]]:
    """Return `PAIRS` as a recipe writes them."""
    return [
        {
            "key": key,
            "prompt": [TEXTS[n] for n in positive],
            "negative_prompt": [TEXTS[n] for n in negative],
        }
        for key, (positive, negative) in PAIRS.items()
    ]


def write_recipe(folder: Path, **changes: Any) -> Path:
    """Write ``recipe.yaml`` and its golden images, grey and coloured, into `folder`; return the recipe."""
    golden = folder / "golden"
    golden.mkdir(parents=True, exist_ok=True)
    for name, first in (("wide", 0), ("square", 1)):
        with Image.open(image_path(name)) as image:
            for number in range(first, GOLDEN, 2):
                left, top = 9 * number, 5 * number
                image.crop((left, top, left + 150 + 7 * number, top + 260 - 5 * number)).save(
                    golden / f"{number:02}.png"
                )
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(**changes), sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def shared_bundle(folder: Path, name: str, **changes: Any) -> Path:
    """Build a bundle of the tiny folder below `folder`, once for all test processes that share it."""
    return build_once(folder, name, lambda recipe_folder: write_recipe(recipe_folder, **changes))


def copy_folder(folder: Path, *, config: Callable[[dict[str, Any]], Any] | None = None) -> Path:
    """Copy the model folder, change its configuration in place, and return the path of its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS, CONFIG, "vocab.txt", "tokenizer_config.json", "bert/config.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(FOLDER / name, folder / name)
    if config is not None:
        change_json(folder / CONFIG, config)
    return folder / WEIGHTS


def change_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Apply a change to a JSON file in place."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@dataclass(frozen=True)
class Sizes:
    """Sizes of a BiomedCLIP: the defaults are the fixture's, where they are not the published ones."""

    width: int = 64
    depth: int = 3
    mlp: int = 256
    heads: int = 4
    text_width: int = 64
    text_depth: int = 3
    text_mlp: int = 160
    text_heads: int = 4
    vocabulary: int = 400
    positions: int = 512
    embed: int = 32
    patch: int = 16
    image: int = 224


PUBLISHED = Sizes(
    width=768, depth=12, mlp=3072, heads=12, text_width=768, text_depth=12, text_mlp=3072, text_heads=12,
    vocabulary=30522, embed=512,
)  # fmt: skip


def layout(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Return every key of the published layout with its shape, written out from the specification."""
    shapes: dict[str, tuple[int, ...]] = {"logit_scale": ()}

    def linear(name: str, out: int, into: int, *, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (out, into)
        if bias:
            shapes[f"{name}.bias"] = (out,)

    def norm(name: str, width: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    width, trunk = sizes.width, "visual.trunk"
    shapes[f"{trunk}.cls_token"] = (1, 1, width)
    shapes[f"{trunk}.pos_embed"] = (1, 1 + (sizes.image // sizes.patch) ** 2, width)
    shapes[f"{trunk}.patch_embed.proj.weight"] = (width, 3, sizes.patch, sizes.patch)
    shapes[f"{trunk}.patch_embed.proj.bias"] = (width,)
    for number in range(sizes.depth):
        block = f"{trunk}.blocks.{number}"
        norm(f"{block}.norm1", width)
        linear(f"{block}.attn.qkv", 3 * width, width)
        linear(f"{block}.attn.proj", width, width)
        norm(f"{block}.norm2", width)
        linear(f"{block}.mlp.fc1", sizes.mlp, width)
        linear(f"{block}.mlp.fc2", width, sizes.mlp)
    norm(f"{trunk}.norm", width)
    linear("visual.head.proj", sizes.embed, width, bias=False)

    width, text = sizes.text_width, "text.transformer"
    rows = {"word": sizes.vocabulary, "position": sizes.positions, "token_type": 2}
    for name, count in rows.items():
        shapes[f"{text}.embeddings.{name}_embeddings.weight"] = (count, width)
    norm(f"{text}.embeddings.LayerNorm", width)
    for number in range(sizes.text_depth):
        layer = f"{text}.encoder.layer.{number}"
        for part in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{part}", width, width)
        linear(f"{layer}.attention.output.dense", width, width)
        norm(f"{layer}.attention.output.LayerNorm", width)
        linear(f"{layer}.intermediate.dense", sizes.text_mlp, width)
        linear(f"{layer}.output.dense", width, sizes.text_mlp)
        norm(f"{layer}.output.LayerNorm", width)
    middle = (width + sizes.embed) // 2
    linear("text.proj.0", middle, width, bias=False)
    linear("text.proj.2", sizes.embed, middle, bias=False)
    return shapes


def random_state(sizes: Sizes, seed: int) -> dict[str, Tensor]:
    """Return seeded weights of the layout, float32, large enough that every one of them counts."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in layout(sizes).items():
        draw = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            state[key] = draw * (0.5 if "embed" in key else shape[1] ** -0.5)
        else:
            norm_weight = key.endswith("weight")  # only those of norms have one dimension
            state[key] = draw * 0.1 + (1.0 if norm_weight else 0.0)
    state["logit_scale"] = 3.0 + 1.5 * torch.rand((), generator=generator)
    return state


def write_folder(folder: Path, sizes: Sizes, state: Mapping[str, Tensor]) -> Path:
    """Write a model folder of other sizes and weights, and return the path of its weights."""

    def names(content: dict[str, Any]) -> None:
        content["model_cfg"]["embed_dim"] = sizes.embed
        content["model_cfg"]["vision_cfg"]["timm_model_name"] = "vit_of_no_registry"
        content["model_cfg"]["vision_cfg"]["image_size"] = sizes.image

    def text_sizes(content: dict[str, Any]) -> None:
        content["hidden_size"], content["num_hidden_layers"] = sizes.text_width, sizes.text_depth
        content["num_attention_heads"] = sizes.text_heads

    path = copy_folder(folder, config=names)
    change_json(folder / "bert" / "config.json", text_sizes)
    torch.save(dict(state), path)
    return path
