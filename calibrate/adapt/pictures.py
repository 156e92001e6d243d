"""Pictures as the deployed network will get them: through the runtime's door and its preprocessing."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

import promptray.runtime
from promptray.calibrate.tables.image_folder import ImageFolder
from promptray.calibrate.tables.labels import LabelledImage
from promptray.export.stage_cache import code_sha256
from promptray.runtime.bundle.image_rules import Door, Preprocessing
from promptray.runtime.door import open_picture
from promptray.runtime.preprocess import normalise, preprocess

Levels = NDArray[Any]


#: What decodes images beside the runtime's own code.
_DECODERS = ("numpy", "pillow", "pydicom", "pyjpegls", "pylibjpeg", "pylibjpeg-openjpeg", "simplejpeg")


@cache
def _code() -> tuple[str, ...]:
    """Return what the reading of images depends on: the runtime's code, the versions of the decoders."""
    return code_sha256(promptray.runtime), *(importlib.metadata.version(name) for name in _DECODERS)


@dataclass(frozen=True)
class PictureReader:
    """Reads the images of a folder for one model.

    Attributes
    ----------
    folder : ImageFolder
    door : Door
        What the model was made for; what it refuses when it scores is refused here, too.
    rule : Preprocessing
    modality : str or None
        Of images that state none and whose row states none.
    """

    folder: ImageFolder
    door: Door
    rule: Preprocessing
    modality: str | None = None

    def rules(self, image: LabelledImage) -> tuple[object, ...]:
        """Return all but the file that decides whether an image is let in, and what its picture is.

        The runtime's code and the decoders are part of it: what is refused changes with them.
        """
        return self.door, self.rule, image.modality or self.modality, image.frame, _code()

    def picture(self, image: LabelledImage) -> Levels:
        """Return levels 0..255, uint8 or float32, shape (height, width); with (..., 3) where in colour.

        Raises
        ------
        ImageError
            ``image.*`` or ``dicom.*``, as when it is scored.
        """
        read = open_picture(
            self.folder.files[image.file],
            self.door,
            self.rule.greyscale,
            keep_colour=self.rule.colour == "rgb",
            modality=image.modality or self.modality,
            frame=image.frame,
            name=image.name,
        )
        levels = preprocess(read.shown, self.rule).picture
        grey = levels.ndim == 3 and all(np.array_equal(levels[..., 0], levels[..., n]) for n in (1, 2))
        return np.ascontiguousarray(levels[..., 0]) if grey else levels

    def pixels(self, pictures: Sequence[Levels]) -> NDArray[np.float32]:
        """Return the network's input for some pictures, shape (B, channels, height, width)."""
        return np.concatenate([normalise(picture[None], self.rule) for picture in pictures])
