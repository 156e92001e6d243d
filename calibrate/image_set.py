"""A folder of images as the network sees them, with what its table says of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.same_picture import picture_sha256, set_sha256, united_patients
from promptray.calibrate.score_images import locate
from promptray.calibrate.tables.csv_file import read_table
from promptray.calibrate.tables.image_folder import ImageFolder
from promptray.calibrate.tables.labels import (
    RESERVED,
    LabelledImage,
    Labels,
    known,
    labels_of,
    patient_key,
)
from promptray.export.stage_cache import StageCache
from promptray.runtime.bundle.calibration_set import CalibrationSet
from promptray.runtime.bundle.gate_summary import ImagesOfGate
from promptray.runtime.bundle.image_rules import Door, Preprocessing
from promptray.runtime.disk import hash_file
from promptray.runtime.door import Halvings, open_picture
from promptray.runtime.errors import BuildError, ImageError
from promptray.runtime.picture import Picture
from promptray.runtime.preprocess import preprocess

Progress = Callable[[str, str, float], None]


class ImagesOf(Protocol):
    """What a recipe or a command says of a folder of images (`ImagesRecipe`)."""

    @property
    def images(self) -> str:
        """The folder, relative to the root."""
        ...

    @property
    def labels(self) -> str | None:
        """The table, likewise."""
        ...

    @property
    def source(self) -> str:
        """What the images are, for people."""
        ...


class _Read(msgspec.Struct, frozen=True):
    """What became of every image: the hash of its picture, or the code that it was refused with."""

    pictures: list[str | None]
    refused: dict[int, str]


class ImageSet:
    """Images of a folder, each with what a table says of it. Hashed at once, decoded when pixels are needed.

    Parameters
    ----------
    section : str
        What progress and errors about an image call it.
    recipe : ImagesOf
    root : Path
        What its paths are relative to.
    keys : collection of str
        Findings; a column of this name is a finding's labels.
    door, preprocessing
        Of the bundle.
    stages : StageCache
        Keeps hashes, never pixels.
    progress : callable
    named_by : str, optional
        What names the folder, for errors: an option of a command; by default the section of a recipe.

    Raises
    ------
    TableError
        ``table.*``.
    BuildError
        ``gate.images`` where no image is left.
    """

    def __init__(
        self,
        section: str,
        recipe: ImagesOf,
        root: Path,
        keys: Collection[str],
        *,
        door: Door,
        preprocessing: Preprocessing,
        stages: StageCache,
        progress: Progress,
        named_by: str | None = None,
    ) -> None:
        self.section, self.source = section, recipe.source
        self._named_by = named_by or f"section {section}"
        self.preprocessing = preprocessing
        self._door, self._progress = door, progress
        self.folder = ImageFolder(root / recipe.images)
        self.labels, self._patient_hashes = None, None
        if recipe.labels:
            self.labels, self._patient_hashes = _labels(root / recipe.labels, keys, self.folder)
        self._images = (
            self.labels.images
            if self.labels
            else [LabelledImage(name, 0) for name in self.folder.files if not _hidden(name)]
        )
        self._decoded: dict[int, NDArray[Any]] = {}
        key = stages.key("pictures", {"images": self._hashes(), "door": msgspec.to_builtins(door),
                                      "preprocessing": msgspec.to_builtins(preprocessing)})  # fmt: skip
        folder, _ = stages.run("pictures", key, self._read_all)
        self._read = msgspec.json.decode((folder / "pictures.json").read_bytes(), type=_Read)
        if not self.rows:
            raise BuildError(
                "gate.images",
                "no image is left",
                artefact=self._named_by,
                found=f"{len(self._images)} images, all refused: {counted(self.refused)}"
                if self._images
                else "an empty folder",
                cure="name other images; they must be what the model was made for",
            )

    @cached_property
    def rows(self) -> list[int]:
        """Rows of the table (or places in the folder) of the images that were not refused."""
        return [row for row, picture in enumerate(self._read.pictures) if picture is not None]

    @property
    def files(self) -> list[str]:
        """File of every image that was not refused, by its path below :attr:`folder`. Never shown."""
        return [self._images[row].file for row in self.rows]

    @property
    def refused(self) -> dict[str, int]:
        """How many images the door refused, by code."""
        return dict(sorted(Counter(self._read.refused.values()).items()))

    @property
    def refused_rows(self) -> list[str]:
        """Which ones, for the report: no name of a file, which may be a patient's."""
        what = "line" if self.labels else "file"
        return [f"{what} {self._number(row)}: {code}" for row, code in sorted(self._read.refused.items())]

    @property
    def numbers(self) -> list[int]:
        """What a report for the house calls an image: its line of the table, or its place in the folder."""
        return [self._number(row) for row in self.rows]

    @cached_property
    def sha256s(self) -> list[str]:
        """Hash of every picture that was not refused."""
        return [picture for picture in self._read.pictures if picture is not None]

    @property
    def facts(self) -> ImagesOfGate:
        """What a bundle says of the images."""
        return ImagesOfGate(
            images=len(self.rows), sha256=set_sha256(self.sha256s), source=self.source, refused=self.refused
        )

    @property
    def calibration_set(self) -> CalibrationSet:
        """What a bundle says of images that a model was made with."""
        return CalibrationSet(images=len(self.rows), sha256=set_sha256(self.sha256s), source=self.source)

    def pictures(self, rows: Sequence[int]) -> list[NDArray[Any]]:
        """Return the pictures of some rows, levels 0..255; they are decoded once."""
        missing = [row for row in rows if row not in self._decoded]
        for number, row in enumerate(missing):
            self._tell(number, len(missing))
            picture = self._decode(self._images[row])
            if picture_sha256(picture) != self._read.pictures[row]:
                raise BuildError(
                    "gate.images",
                    "an image was changed after it was first read",
                    artefact=f"{self._named_by}, image {row + 1}",
                    cure="run the command again",
                )
            self._decoded[row] = picture
        return [self._decoded[row] for row in rows]

    def reduced(self, row: int, halvings: Halvings) -> tuple[NDArray[Any], int] | None:
        """Return a row's picture with JPEG 2000 decoded no finer than needed, and how often it was halved.

        Parameters
        ----------
        row : int
        halvings : callable
            (rows, columns) -> how often they may be halved in decoding.

        Returns
        -------
        (ndarray, int) or None
            Levels 0..255; None where it is decoded whole all the same.

        Raises
        ------
        ImageError
        """
        read = self._open(self._images[row], halvings)
        if not read.reduction:
            return None
        return preprocess(read.shown, self.preprocessing).picture, read.reduction

    def labels_for(self, keys: Sequence[str]) -> NDArray[np.float64] | None:
        """Return labels float64 (images, findings), NaN where unknown; None without any."""
        if self.labels is None or not set(keys) & set(self.labels.keys):
            return None
        counted, present = known(self.labels.values[self.rows], "ignore")
        own = np.where(counted, present.astype(float), np.nan)
        column = {key: own[:, number] for number, key in enumerate(self.labels.keys)}
        unknown = np.full(len(self.rows), np.nan)
        return np.stack([column.get(key, unknown) for key in keys], axis=1)

    @property
    def patients_known(self) -> bool:
        """Whether the table names patients."""
        return self._patient_hashes is not None

    @property
    def patient_hashes(self) -> list[str]:
        """Hash of the id of every image's patient; of an image without one, a mark that no other has."""
        if self._patient_hashes is None:
            return [f"{self.section} {row}" for row in self.rows]
        return [self._patient_hashes[row] for row in self.rows]

    @property
    def patients(self) -> NDArray[np.int64]:
        """Whose each image is, numbered from 0: all that share a patient or a picture count as one's."""
        return united_patients(numbered(self.patient_hashes), self.sha256s)

    def classes(self) -> list[str] | None:
        """Return a class of each image, to warn where all are of one; None without labels."""
        if self.labels is None or not self.labels.keys:
            return None
        return [row.tobytes().hex() for row in self.labels.values[self.rows]]

    def _number(self, row: int) -> int:
        return self._images[row].line or row + 1

    def _hashes(self) -> list[tuple[str, str | None, int | None]]:
        found = []
        for number, image in enumerate(self._images):
            self._tell(number, len(self._images))
            sha256 = hash_file(self.folder.files[image.file])[0]
            found.append((sha256, image.modality, image.frame))
        return found

    def _read_all(self, folder: Path) -> None:
        pictures: list[str | None] = []
        refused: dict[int, str] = {}
        for row, image in enumerate(self._images):
            self._tell(row, len(self._images))
            try:
                self._decoded[row] = self._decode(image)
                pictures.append(picture_sha256(self._decoded[row]))
            except ImageError as error:
                refused[row] = error.code
                pictures.append(None)
        (folder / "pictures.json").write_bytes(msgspec.json.encode(_Read(pictures, refused)))

    def _decode(self, image: LabelledImage) -> NDArray[Any]:
        return preprocess(self._open(image).shown, self.preprocessing).picture

    def _open(self, image: LabelledImage, halvings: Halvings | None = None) -> Picture:
        rule = self.preprocessing
        read = partial(
            open_picture, self.folder.files[image.file], self._door, rule.greyscale,
            keep_colour=rule.colour == "rgb", frame=image.frame, name=f"{self.section} image",
            halvings=halvings,
        )  # fmt: skip
        try:
            return read(modality=image.modality)
        except ImageError as error:
            if image.modality is not None or error.code != "image.modality-undeclared":
                raise
            # Files without tags (PNG, JPEG) are taken for what the model was made for, as golden images are.
            return read(modality=self._door.modalities[0])

    def _tell(self, done: int, images: int) -> None:
        if done and done * 20 // images > (done - 1) * 20 // images:  # each twentieth
            self._progress(self.section, f"reading {done} of {images} images", done / images)


def numbered(marks: Sequence[str]) -> NDArray[np.int64]:
    """Return a number for each mark, the same for the same."""
    numbers: NDArray[np.int64] = np.unique(np.asarray(marks, str), return_inverse=True)[1].reshape(-1)
    return numbers


def _labels(path: Path, keys: Collection[str], folder: ImageFolder) -> tuple[Labels, tuple[str, ...] | None]:
    """Read a table whose columns of findings are optional, and hashes of the patients that it names."""
    table = read_table(path)
    table.require("file")
    columns = {key: key for key in keys if key in table.columns and key not in RESERVED}
    labels = locate(labels_of(table, columns), folder)
    if not labels.clustered:
        return labels, None
    ids = (patient_key(row.cells["patient_id"]).encode() for row in table.rows)
    return labels, tuple(hashlib.sha256(each).hexdigest() for each in ids)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def counted(refused: Mapping[str, int]) -> str:
    """Say how many images were refused for which reason."""
    return ", ".join(f"{count} x {code}" for code, count in refused.items())
