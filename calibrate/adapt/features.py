"""Image vectors, computed once and kept in a file that outlives a kill. It holds hashes and numbers only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from promptray.calibrate.adapt.pictures import PictureReader
from promptray.calibrate.adapt.progress import Progress
from promptray.calibrate.adapt.whole import replace_whole
from promptray.calibrate.tables.labels import LabelledImage
from promptray.runtime.errors import PromptRayError

Floats = NDArray[np.float32]
#: Pixels (B, C, H, W) -> vectors (B, D).
Embed = Callable[[Floats], Floats]

_BATCH = 16
#: Written again when this many vectors are new, and at least a tenth of those that are there.
_NEW = 64


def feature_key(tower: str, reader: PictureReader, image: LabelledImage, file: str) -> str:
    """Return the name of a vector: a hash of weights, file, and all that decides if and how it is read.

    Only images that the door let in have a vector, so a name that is there says that the same door, asked in
    the same way, let the same file in. A file of vectors from elsewhere changes nothing but the time.

    Parameters
    ----------
    tower : str
        Hash of the image tower.
    reader : PictureReader
    image : LabelledImage
    file : str
        Hash of its file.
    """
    facts = msgspec.json.encode([tower, file, *reader.rules(image)])
    return hashlib.sha256(facts).hexdigest()


class FeatureStore:
    """A safetensors file with a float32 vector (D,) for each key.

    Parameters
    ----------
    path : Path
        Read if it is there.

    Raises
    ------
    PromptRayError
        ``adapt.state`` if it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._vectors: dict[str, Floats] = {}
        self._saved = 0
        if path.exists():
            try:
                self._vectors = safetensors.numpy.load(path.read_bytes())
            except (SafetensorError, ValueError, KeyError, OSError):
                raise self._damaged("it cannot be read") from None
        self._saved = len(self._vectors)

    def __len__(self) -> int:
        return len(self._vectors)

    def get(self, key: str, width: int) -> Floats | None:
        """Return the vector of a key, or None.

        Raises
        ------
        PromptRayError
            ``adapt.state`` if it is no finite vector of `width` numbers.
        """
        found = self._vectors.get(key)
        if found is not None and (found.shape != (width,) or not np.isfinite(found).all()):
            raise self._damaged("it holds other numbers than were written")
        return found

    def add(self, key: str, vector: Floats) -> None:
        """Keep a vector in memory; it is written with many others."""
        self._vectors[key] = np.array(vector, np.float32)
        if len(self._vectors) - self._saved >= max(_NEW, self._saved // 10):
            self.save()

    def save(self) -> None:
        """Write what is new, whole or not at all."""
        if len(self._vectors) == self._saved:
            return
        replace_whole(self._path, safetensors.numpy.save(self._vectors))
        self._saved = len(self._vectors)

    def _damaged(self, how: str) -> PromptRayError:
        return PromptRayError(
            "adapt.state",
            f"the file of image vectors is damaged: {how}",
            artefact=self._path.name,
            cure="delete it; the vectors are computed again",
        )


def compute_features(
    embed: Embed,
    width: int,
    tower: str,
    reader: PictureReader,
    images: Sequence[LabelledImage],
    files: Sequence[str],
    store: FeatureStore,
    progress: Progress,
) -> tuple[Floats, dict[int, str]]:
    """Return the image vectors (n, D), and the rows of images that were refused with the code.

    Parameters
    ----------
    embed : callable
    width : int
        D.
    tower : str
        Hash of what is behind `embed`.
    reader : PictureReader
    images : sequence of LabelledImage
    files : sequence of str
        Hash of the file of each.
    store : FeatureStore
        What it holds is not computed again; what is computed is kept in it.
    progress : callable
        Called with (stage, message, fraction).
    """
    vectors = np.full((len(images), width), np.nan, np.float32)
    refused: dict[int, str] = {}
    keys = [feature_key(tower, reader, image, file) for image, file in zip(images, files, strict=True)]
    for start in range(0, len(images), _BATCH):
        rows = range(start, min(start + _BATCH, len(images)))
        progress("features", f"{rows.stop} of {len(images)}", rows.stop / len(images))
        stored = {row: store.get(keys[row], width) for row in rows}
        pictures = {}
        for row in rows:
            vector = stored[row]
            if vector is not None:
                vectors[row] = vector
                continue
            try:
                pictures[row] = reader.picture(images[row])
            except PromptRayError as error:
                refused[row] = error.code
        if pictures:
            made = embed(reader.pixels(list(pictures.values())))
            for row, vector in zip(pictures, made, strict=True):
                _require_finite(vector, images[row])
                vectors[row] = vector
                store.add(keys[row], vector)
    store.save()
    return vectors, refused


def _require_finite(vector: Floats, image: LabelledImage) -> None:
    if not np.isfinite(vector).all():
        raise PromptRayError(
            "score.not-finite",
            "the image tower gave NaN or infinity",
            artefact=image.place,
            cure="check the checkpoint with `promptray build`, whose gate compares it with its graph",
        )
