"""The images that ranges are taken from, read as the runtime reads them, counted and hashed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.same_picture import picture_sha256, set_sha256
from promptray.runtime.bundle.calibration_set import CalibrationSet
from promptray.runtime.bundle.image_rules import Door, Preprocessing
from promptray.runtime.door import open_picture
from promptray.runtime.errors import BuildError
from promptray.runtime.preprocess import normalise, preprocess

#: Thresholds ("mse") of the reference model's layers from 64 images differ from those of 144 by 0.8 % on
#: average and 4 % at most, those from 8 images by 2.0 % and 8 %. Of "max" the 64 are 13 % short somewhere.
ENOUGH = 64


class ImageFeeds(Sequence[Mapping[str, NDArray[np.float32]]]):
    """Network inputs of pictures, made when asked for: 8 bits are kept, not the floats.

    Parameters
    ----------
    pictures : uint8 or float32 array, (images, height, width[, channels])
        Levels 0..255 as the network sees them.
    preprocessing : Preprocessing
    """

    def __init__(self, pictures: NDArray[Any], preprocessing: Preprocessing) -> None:
        self.pictures, self.preprocessing = pictures, preprocessing

    def __len__(self) -> int:
        return len(self.pictures)

    @overload
    def __getitem__(self, index: int) -> Mapping[str, NDArray[np.float32]]: ...
    @overload
    def __getitem__(self, index: slice) -> ImageFeeds: ...
    def __getitem__(self, index: int | slice) -> Mapping[str, NDArray[np.float32]] | ImageFeeds:
        """Return ``{"pixels": (1, channels, height, width)}`` of an image, or the feeds of several."""
        if isinstance(index, slice):
            return ImageFeeds(self.pictures[index], self.preprocessing)
        return {"pixels": normalise(self.pictures[index][None], self.preprocessing)}


@dataclass(frozen=True, eq=False)
class CalibrationImages:
    """Images to calibrate with, and what a bundle's provenance says of them.

    Attributes
    ----------
    feeds : ImageFeeds
    facts : CalibrationSet
        Count, hash of the pictures the network sees, and source: no name, no patient data.
    warnings : tuple of str
        What makes the set a poor one.
    """

    feeds: ImageFeeds
    facts: CalibrationSet
    warnings: tuple[str, ...]


def calibration_images(
    files: Sequence[Path],
    door: Door,
    preprocessing: Preprocessing,
    *,
    source: str,
    labels: Sequence[str] | None = None,
) -> CalibrationImages:
    """Read images through the bundle's own door and preprocessing.

    Parameters
    ----------
    files : sequence of Path
        DICOM, PNG or JPEG; images without a modality count as the first of the door's.
    door : Door
    preprocessing : Preprocessing
        Of the bundle that is quantised.
    source : str
        Where they come from, for the provenance: a data set's name, never a path.
    labels : sequence of str, optional
        A class of each image, to warn when there is only one.

    Raises
    ------
    BuildError
        ``quantise.calibration`` without images, or with other than one label for each.
    ImageError
        The first image that is refused, with its reason: the fp32 bundle would not score it either.
    """
    if not files or (labels is not None and len(labels) != len(files)):
        raise BuildError(
            "quantise.calibration",
            "there is no image to calibrate with" if not files else "images and labels do not match",
            expected="at least one image, and one label for each where there are labels",
            found=f"{len(files)} images, {'no' if labels is None else len(labels)} labels",
            cure=f"give {ENOUGH} or more images like those the model will see",
        )
    pictures = np.stack([_picture(file, door, preprocessing) for file in files])
    hashes = [picture_sha256(picture) for picture in pictures]
    facts = CalibrationSet(images=len(files), sha256=set_sha256(hashes), source=source)
    warnings = tuple(warnings_of(len(files), len(set(hashes)), labels))
    return CalibrationImages(ImageFeeds(pictures, preprocessing), facts, warnings)


def _picture(file: Path, door: Door, preprocessing: Preprocessing) -> NDArray[Any]:
    picture = open_picture(
        file,
        door,
        preprocessing.greyscale,
        keep_colour=preprocessing.colour == "rgb",
        modality=door.modalities[0],
    )
    return preprocess(picture.shown, preprocessing).picture


def warnings_of(images: int, different: int, labels: Sequence[str] | None) -> list[str]:
    """Return what makes a set a poor one: `different` of its images differ; a class of each, if known."""
    found = []
    if different < images:
        found.append(f"{images - different} of {images} images are copies of others")
    if different < ENOUGH:
        found.append(f"{different} different images are few: ranges settle with {ENOUGH} or more")
    if labels is None:
        found.append("no labels were given, so it is not known whether every class is among the images")
    elif len(set(labels)) == 1:
        found.append("all images are of one class: what only other classes light up has no range")
    return found
