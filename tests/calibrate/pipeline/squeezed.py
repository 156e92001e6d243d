"""The tiny SqueezeNet with pictures to quantise it by: many groups of layers, and quick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests import squeezenet_tiny

CALIBRATED, SEARCHED, GATED = 8, 12, 30
QUANTISE: dict[str, Any] = {
    "image": {"scheme": "int8-qdq", "calibration": "max"},
    "calibration": {"images": "calibration", "source": "blocks, seed 1"},
}
SEARCH = {"images": "search", "source": "blocks, seed 2"}
GATE = {"images": "gate", "source": "blocks, seed 3"}


def write_pictures(folder: Path) -> None:
    """Write pictures of random blocks for each section, no two alike."""
    for seed, (name, count) in enumerate(
        (("calibration", CALIBRATED), ("search", SEARCHED), ("gate", GATED)), 1
    ):
        random = np.random.default_rng(seed)
        (folder / name).mkdir(parents=True)
        for number in range(count):
            levels = random.integers(0, 256, (8, 8)).astype(np.uint8)
            Image.fromarray(np.kron(levels, np.ones((8, 8), np.uint8))).save(folder / name / f"{number}.png")


def write_recipe(folder: Path, **changes: Any) -> Path:
    """Write the recipe of a model that tells these pictures apart; None removes a key."""
    return squeezenet_tiny.write_recipe(folder, seed=9, **{"quantise": QUANTISE, "gate": GATE, **changes})
