"""A SqueezeNet with seeded weights in torchvision's layout, as a recipe, and its arithmetic written out.

Layers and their places are read in Iandola et al., arXiv 1602.07360, tables 1 and 2, and in torchvision.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import yaml
from torch import Tensor
from torch.nn import functional

from tests.plain_recipe import plain_recipe

CLASSES = ["bacterial", "normal", "viral"]
SIDE = 64
#: Place in `features` -> channels of squeeze and of each of the two expansions, or "pool"; after the stem.
PLACES: dict[str, dict[int, Any]] = {
    "1.0": {2: "pool", 3: (16, 64), 4: (16, 64), 5: (32, 128), 6: "pool", 7: (32, 128), 8: (48, 192),
            9: (48, 192), 10: (64, 256), 11: "pool", 12: (64, 256)},
    "1.1": {2: "pool", 3: (16, 64), 4: (16, 64), 5: "pool", 6: (32, 128), 7: (32, 128), 8: "pool",
            9: (48, 192), 10: (48, 192), 11: (64, 256), 12: (64, 256)},
}  # fmt: skip
STEMS = {"1.0": (96, 3, 7, 7), "1.1": (64, 3, 3, 3)}


def random_state(seed: int, version: str = "1.1", classes: int = len(CLASSES)) -> dict[str, Tensor]:
    """Draw weights large enough that every tensor counts; float32."""
    generator = torch.Generator().manual_seed(seed)
    shapes, width = {"features.0": STEMS[version]}, STEMS[version][0]
    for place, fire in PLACES[version].items():
        if fire == "pool":
            continue
        squeeze, expand = fire
        shapes |= {
            f"features.{place}.squeeze": (squeeze, width, 1, 1),
            f"features.{place}.expand1x1": (expand, squeeze, 1, 1),
            f"features.{place}.expand3x3": (expand, squeeze, 3, 3),
        }
        width = 2 * expand
    shapes["classifier.1"] = (classes, width, 1, 1)
    state = {}
    for name, shape in shapes.items():
        scale = (2.0 / np.prod(shape[1:])) ** 0.5
        state[f"{name}.weight"] = scale * torch.randn(shape, generator=generator)
        state[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)
    return state


def arithmetic(state: Mapping[str, Tensor], pixels: Tensor, version: str = "1.1") -> tuple[Any, Any]:
    """Return logits (B, K) and maps (B, K, rows, columns) in double, layer by layer."""

    def layer(name: str, values: Tensor, **how: int) -> Tensor:
        weight, bias = (state[f"{name}.{part}"].double() for part in ("weight", "bias"))
        return functional.conv2d(values, weight, bias, **how).clamp(min=0)

    values = layer("features.0", pixels.double(), stride=2)
    for place, fire in PLACES[version].items():
        if fire == "pool":
            values = functional.max_pool2d(values, 3, 2, ceil_mode=True)
            continue
        squeezed = layer(f"features.{place}.squeeze", values)
        one, three = (layer(f"features.{place}.expand{n}x{n}", squeezed, padding=n // 2) for n in (1, 3))
        values = torch.cat([one, three], dim=1)
    maps = layer("classifier.1", values)
    return maps.mean(dim=(2, 3)).numpy(), maps.numpy()


def recipe(checkpoint: Path, **changes: Any) -> dict[str, Any]:
    """The recipe as plain values; `changes` replaces keys at the top, None removes one."""
    own = {
        "name": "squeezenet-test",
        "family": "squeezenet",
        "checkpoint": str(checkpoint),
        "model_options": {"preprocessing": "square", "classes": CLASSES, "image_size": SIDE},
        "relation": "exclusive",
        "findings": [{"key": name} for name in CLASSES],
        "golden": None,
    }
    return plain_recipe(own, changes)


def write_recipe(folder: Path, seed: int = 0, version: str = "1.1", **changes: Any) -> Path:
    """Write ``squeezenet.safetensors`` and ``recipe.yaml``; return the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, path = folder / "squeezenet.safetensors", folder / "recipe.yaml"
    safetensors.torch.save_file(random_state(seed, version), checkpoint)
    path.write_text(yaml.safe_dump(recipe(checkpoint, **changes), sort_keys=False), encoding="utf-8")
    return path
