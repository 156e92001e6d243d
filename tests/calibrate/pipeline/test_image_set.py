"""The images of a section: what counts as one patient's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promptray.calibrate.pipeline.image_set import ImageSet
from promptray.calibrate.pipeline.recipe import ImagesRecipe
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


@pytest.mark.parametrize(
    ("patients", "expected"),
    [(["p", "q", "r", "s"], [0, 0, 1, 2]), (["p", "q", "q", "s"], [0, 0, 0, 1]), (None, [0, 1, 2, 0])],
    ids=["a copy under another id", "and that id has more", "no ids, in the order of the folder"],
)
def test_copies_are_of_one_patient(tmp_path: Path, patients: list[str] | None, expected: list[int]) -> None:
    names = ["a.png", "copy of a.png", "b.png", "c.png"]
    for name, seed in zip(names, (1, 1, 2, 3), strict=True):
        grey = np.random.default_rng(seed).integers(0, 256, (40, 40), np.uint8)
        Image.fromarray(grey).save(tmp_path / name)
    recipe = ImagesRecipe(images=".", source="noise")
    if patients is not None:
        rows = [f"{name},{patient}" for name, patient in zip(names, patients, strict=True)]
        (tmp_path / "gate.csv").write_text("\n".join(["file,patient_id", *rows]) + "\n", encoding="utf-8")
        recipe = ImagesRecipe(images=".", labels="gate.csv", source="noise")
    images = ImageSet(
        "gate", recipe, tmp_path, {"edema"}, door=Door(modalities=["CR"]), preprocessing=PREPROCESSING,
        stages=StageCache(tmp_path / "cache"), progress=lambda stage, message, fraction: None,
    )  # fmt: skip
    assert images.patients is not None
    assert images.patients.tolist() == expected
