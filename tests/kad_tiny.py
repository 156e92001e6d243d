"""Checkpoints in KAD's published layout with seeded weights, as recipes and bundles.

The shapes are written out from the published modules, so that no module under test has a say in the keys.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from tests.carzero_tiny import FOLDER as CARZERO
from tests.carzero_tiny import build_once, write_golden_images
from tests.plain_recipe import plain_recipe

VOCABULARY = Path(__file__).parent / "data" / "biomedclip_tiny" / "vocab.txt"
PIECES = len(VOCABULARY.read_text(encoding="utf-8").splitlines())
IMAGES = tuple(sorted((CARZERO / "images").glob("*.png")))
FINDINGS = ("pleural effusion", "pneumonia", "lung opacity", "enlarged heart", "lymph node metastasis")

Shapes = dict[str, tuple[int, ...]]
State = dict[str, Tensor]
#: The children of torchvision's ResNet that have weights, as the published image side numbers them.
_CHILDREN = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
_BN = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Sizes:
    """Of a tiny model; 4 attention heads in the decoder, as published."""

    stages: int = 3
    blocks: Sequence[int] = (1, 2, 1, 1)
    channels: Sequence[int] = (4, 8, 12, 16)
    width: int = 32
    ffn: int = 40
    layers: int = 2
    bert_width: int = 24
    bert_layers: int = 2
    bert_heads: int = 3
    positions: int = 256


def checkpoint(sizes: Sizes = Sizes(), seed: int = 1) -> dict[str, Any]:
    """Return what the training script saves: three state dicts, tied tensors twice, and what is not used."""
    generator = torch.Generator().manual_seed(seed)
    image = _drawn(_image_shapes(sizes), generator)
    decoder = _drawn(_decoder_shapes(sizes), generator)
    norm = {f"decoder.norm.{part}": decoder[f"decoder_norm.{part}"] for part in ("weight", "bias")}
    text = _drawn(_text_shapes(sizes), generator)
    text["bert_model.embeddings.position_ids"] = torch.arange(sizes.positions)[None]
    return {
        "model": {**decoder, **norm, "logit_scale": torch.tensor(2.6)},
        "image_encoder": {**image, **_numbered(image, sizes)},
        "text_encoder": {**text, "logit_scale": torch.tensor(2.6)},
        "optimizer": {"state": {}, "param_groups": [{"lr": 5e-5}]},
        "config": {"image_res": 224, "batch_size": 64},
        "epoch": 7,
    }


def _numbered(image: State, sizes: Sizes) -> State:
    """Return the children of the ResNet that are used under their second names."""
    last = 3 + sizes.stages
    return {
        key.replace(f"resnet.{name}.", f"res_features.{place}."): value
        for name, place in _CHILDREN.items()
        for key, value in image.items()
        if place <= last and key.startswith(f"resnet.{name}.")
    }


def _linear(name: str, into: int, out: int) -> Shapes:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def _pair(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _image_shapes(sizes: Sizes) -> Shapes:
    shapes: Shapes = {"resnet.conv1.weight": (64, 3, 7, 7)}
    shapes |= {f"resnet.bn1.{part}": (64,) for part in _BN}
    into = 64
    for stage, (blocks, width) in enumerate(zip(sizes.blocks, sizes.channels, strict=True), start=1):
        for block in range(blocks):
            stem, out = f"resnet.layer{stage}.{block}", 4 * width
            convolutions = {"1": (width, into, 1, 1), "2": (width, width, 3, 3), "3": (out, width, 1, 1)}
            for number, shape in convolutions.items():
                shapes[f"{stem}.conv{number}.weight"] = shape
                shapes |= {f"{stem}.bn{number}.{part}": shape[:1] for part in _BN}
            if block == 0:
                shapes[f"{stem}.downsample.0.weight"] = (out, into, 1, 1)
                shapes |= {f"{stem}.downsample.1.{part}": (out,) for part in _BN}
            into = out
    shapes |= _linear("resnet.fc", into, 10)
    features = 4 * sizes.channels[sizes.stages - 1]
    return {**shapes, **_linear("res_l1", features, features), **_linear("res_l2", features, sizes.width)}


def _text_shapes(sizes: Sizes) -> Shapes:
    width = sizes.bert_width
    tables = {"word": PIECES, "position": sizes.positions, "token_type": 2}
    shapes: Shapes = {
        f"bert_model.embeddings.{name}_embeddings.weight": (rows, width) for name, rows in tables.items()
    }
    shapes |= _pair("bert_model.embeddings.LayerNorm", width)
    for layer in range(sizes.bert_layers):
        stem = f"bert_model.encoder.layer.{layer}"
        for name in ("attention.self.query", "attention.self.key", "attention.self.value"):
            shapes |= _linear(f"{stem}.{name}", width, width)
        shapes |= _linear(f"{stem}.attention.output.dense", width, width)
        shapes |= _pair(f"{stem}.attention.output.LayerNorm", width)
        shapes |= _linear(f"{stem}.intermediate.dense", width, 2 * width)
        shapes |= _linear(f"{stem}.output.dense", 2 * width, width)
        shapes |= _pair(f"{stem}.output.LayerNorm", width)
    shapes |= _linear("bert_model.pooler.dense", width, width)
    return {**shapes, **_linear("mlp_embed.0", width, width), **_linear("mlp_embed.2", width, sizes.width)}


def _decoder_shapes(sizes: Sizes) -> Shapes:
    width = sizes.width
    shapes = _pair("decoder_norm", width)
    for layer in range(sizes.layers):
        stem = f"decoder.layers.{layer}"
        for name in ("self_attn", "multihead_attn"):
            shapes[f"{stem}.{name}.in_proj_weight"] = (3 * width, width)
            shapes[f"{stem}.{name}.in_proj_bias"] = (3 * width,)
            shapes |= _linear(f"{stem}.{name}.out_proj", width, width)
        shapes |= _linear(f"{stem}.linear1", width, sizes.ffn)
        shapes |= _linear(f"{stem}.linear2", sizes.ffn, width)
        for name in ("norm1", "norm2", "norm3"):
            shapes |= _pair(f"{stem}.{name}", width)
    return {**shapes, **_linear("mlp_head.0", width, 2)}


def _drawn(shapes: Shapes, generator: torch.Generator) -> State:
    return {key: _draw(key, shape, generator) for key, shape in shapes.items()}


def _draw(key: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    draw = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return draw * (2 / math.prod(shape[1:])) ** 0.5
    if key.endswith("running_var"):
        return 0.5 + draw.abs()
    return draw * 0.1 + (1.0 if key.endswith("weight") else 0.0)


def write_text_model(folder: Path, sizes: Sizes = Sizes(), **settings: Any) -> Path:
    """Write the tokenizer's folder; `settings` are those of its ``tokenizer_config.json``."""
    path = folder / "text_model"
    path.mkdir(parents=True, exist_ok=True)
    (path / "vocab.txt").write_bytes(VOCABULARY.read_bytes())
    config = {
        "hidden_act": "gelu",
        "hidden_size": sizes.bert_width,
        "num_attention_heads": sizes.bert_heads,
        "num_hidden_layers": sizes.bert_layers,
    }
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if settings:
        (path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return path


def write(
    folder: Path,
    sizes: Sizes = Sizes(),
    change: Callable[[dict[str, Any]], Mapping[str, Any]] = lambda content: content,
    **text_settings: Any,
) -> tuple[Path, Path]:
    """Write a checkpoint, changed, and its text model; return both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "best_valid.pt"
    torch.save(dict(change(checkpoint(sizes))), path)
    return path, write_text_model(folder, sizes, **text_settings)


def write_recipe(folder: Path, **changes: Any) -> Path:
    """Write model, golden images and ``recipe.yaml``; `changes` replace keys at the top."""
    path, text_model = write(folder)
    write_golden_images(folder / "golden")
    own = {
        "name": "kad-tiny",
        "family": "kad",
        "checkpoint": path.name,
        "text_model": text_model.name,
        "model_options": {"image_size": 64},
        "findings": [{"key": term} for term in FINDINGS],
    }
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(plain_recipe(own, changes), sort_keys=False), encoding="utf-8")
    return recipe


def shared_bundle(folder: Path, name: str, **changes: Any) -> Path:
    """Build a bundle below `folder`, once for all test processes that share it."""
    return build_once(folder, name, lambda recipe_folder: write_recipe(recipe_folder, **changes))
