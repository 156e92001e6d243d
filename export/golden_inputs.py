"""The golden inputs of a bundle: pictures that may be distributed, read through the runtime's own door."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.bundle.image_rules import Door, Preprocessing
from promptray.runtime.bundle.validate import LEAST_GOLDEN
from promptray.runtime.door import open_picture
from promptray.runtime.errors import BuildError
from promptray.runtime.preprocess import preprocess

_SHIPPED = Path(__file__).parent / "golden"
_SHIPPED_LICENCE = "CC BY 4.0: Kermany, Zhang, Goldbaum, Mendeley Data v2, doi:10.17632/rscbjbr9sj.2"
_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class GoldenInputs:
    """Files in name order, and the licence they come under."""

    files: tuple[Path, ...]
    licence: str


def golden_inputs(folder: Path | None, licence: str | None) -> GoldenInputs:
    """Return the golden inputs of a folder, or those PromptRay ships.

    Raises
    ------
    BuildError
        ``recipe.invalid`` with fewer than 16 images.
    """
    root = folder or _SHIPPED
    files = tuple(sorted(path for path in root.glob("*") if path.suffix.lower() in _SUFFIXES))
    if len(files) < LEAST_GOLDEN:
        raise BuildError(
            "recipe.invalid",
            "too few golden images",
            artefact=root.name,
            expected=f"at least {LEAST_GOLDEN} PNG or JPEG files",
            found=str(len(files)),
            cure="add images that you may distribute, or leave 'golden' out to use the ones PromptRay ships",
        )
    return GoldenInputs(files, licence or _SHIPPED_LICENCE)


def read_pictures(inputs: GoldenInputs, door: Door, preprocessing: Preprocessing) -> NDArray[Any]:
    """Return the pictures the network sees, levels 0..255 (images, height, width[, 3])."""
    pictures = []
    for path in inputs.files:
        picture = open_picture(
            path,
            door,
            preprocessing.greyscale,
            keep_colour=preprocessing.colour == "rgb",
            modality=door.modalities[0],
        )
        pictures.append(preprocess(picture.shown, preprocessing).picture)
    return np.stack(pictures)
