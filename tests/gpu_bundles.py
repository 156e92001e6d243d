"""Tiny bundles with all that `make gpu` tries: fp32 and fp16, for TensorRT 8.6, too, and images prepared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from promptray.calibrate.pipeline import build
from promptray.runtime.bundle import Bundle
from tests import asg_tiny, carzero_tiny, open_clip_tiny
from tests.calibrate.pipeline.conftest import reference_recipe

SAMPLES = Path(__file__).parents[1] / "examples" / "samples"
#: TensorRT 8.6 reads nothing newer than opset 17, of which there is fp16 alone: other libraries have both.
PRECISIONS = ("fp32", "fp16")
SECTION: dict[str, Any] = {
    "precision": "fp16",
    "opset_17": True,
    "prepare": True,
    "calibration": {"images": str(SAMPLES), "source": "the sample radiographs"},
}
_RECIPES: dict[str, Callable[[Path], Path]] = {
    "carzero": lambda folder: carzero_tiny.write_recipe(folder, tensorrt=SECTION),
    "open-clip": lambda folder: open_clip_tiny.write_recipe(folder, tensorrt=SECTION),
    "asg-both": lambda folder: asg_tiny.write_recipe(folder, **asg_tiny.both_recipe(), tensorrt=SECTION),
    "reference": lambda folder: reference_recipe(folder, folder, quantise=None, gate=None, tensorrt=SECTION),
}
NAMES = tuple(_RECIPES)


def gpu_bundle(folder: Path, name: str) -> Bundle:
    """Build one of :data:`NAMES` below `folder`, once for all test processes that share it."""
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / f"gpu-{name}.bundle"
    with FileLock(folder / f"gpu-{name}.lock"):
        if not output.exists():
            recipe_folder = folder / f"gpu-{name}"
            recipe_folder.mkdir(exist_ok=True)
            build(_RECIPES[name](recipe_folder), output, cache=folder / "cache")
    return Bundle.open(output)
