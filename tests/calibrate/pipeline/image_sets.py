"""Image sets of noise: equal seeds are copies of one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from promptray.calibrate.image_set import ImageSet
from promptray.calibrate.pipeline.images_recipe import ImagesRecipe
from promptray.export.stage_cache import StageCache
from promptray.runtime.bundle.image_rules import Door, Greyscale, Normalise, Preprocessing, Squash

PREPROCESSING = Preprocessing(
    greyscale=Greyscale(),
    steps=[Squash(size=32)],
    normalise=Normalise(mean=[0.5], std=[0.5]),
    channels=1,
    height=32,
    width=32,
)


def noise_set(
    root: Path, section: str, seeds: Sequence[int], patients: Sequence[str] | None = None
) -> ImageSet:
    """Write pictures of noise, with a table where patients are named, and read them as a section."""
    folder = root / section
    folder.mkdir()
    names = [f"{number}.png" for number in range(len(seeds))]
    for name, seed in zip(names, seeds, strict=True):
        grey = np.random.default_rng(seed).integers(0, 256, (40, 40), np.uint8)
        Image.fromarray(grey).save(folder / name)
    labels = None
    if patients is not None:
        labels = f"{section}.csv"
        rows = [f"{name},{patient}" for name, patient in zip(names, patients, strict=True)]
        (root / labels).write_text("\n".join(["file,patient_id", *rows]) + "\n", encoding="utf-8")
    return ImageSet(
        section, ImagesRecipe(images=section, labels=labels, source="noise"), root, {"edema"},
        door=Door(modalities=["CR"]), preprocessing=PREPROCESSING, stages=StageCache(root / "cache"),
        progress=lambda stage, message, fraction: None,
    )  # fmt: skip
