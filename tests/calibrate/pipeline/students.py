"""A tiny ConvNeXt's recipe with a student in the place of its tower, and pictures to learn and gate it on."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from promptray.runtime.gate_limits import Limits
from tests import convnext_tiny

LEARNED, GATED = 24, 30
DISTIL: dict[str, Any] = {
    "student": "test_vit",
    "epochs": 2,
    "batch": 8,
    "rate": 2e-3,
    "augment": {"views": 1},
    "validation": 0.25,
    "images": "learn",
    "source": "steps, even",
}
GATE: dict[str, Any] = {"images": "gate", "source": "steps, odd"}


def write_steps(folder: Path, count: int, seed: int) -> list[str]:
    """Write pictures of two levels, even ones with seed 0 and odd ones with 1; return their names."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    names = [f"{number:03}.png" for number in range(count)]
    for name in names:
        levels = 2 * random.integers(0, 128, (2, 1)) + seed
        Image.fromarray(np.kron(levels, np.ones((16, 32))).astype(np.uint8)).save(folder / name)
    return names


def student_recipe(folder: Path, **changes: Any) -> Path:
    """Write the tiny ConvNeXt's recipe with a student, and the pictures; None removes a key."""
    if not (folder / "learn").exists():
        write_steps(folder / "learn", LEARNED, 0)
        write_steps(folder / "gate", GATED, 1)
    return convnext_tiny.write_recipe(folder, **{"distil": DISTIL, "gate": GATE, **changes})


def lenient() -> Limits:
    """Limits that any student keeps: how one that passed is written is tested, not whether it is good."""
    least = ("spearman", "map_correlation", "map_overlap")
    return Limits(**{each.name: -2.0 if each.name in least else 1e9 for each in fields(Limits)})
