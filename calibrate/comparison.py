"""Compare two sides, each a scorer or a table of scores: from images to the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from promptray.calibrate.compare import REFERENCE_RATE, compare
from promptray.calibrate.compare_bounds import Bounds
from promptray.calibrate.comparison_report import ComparisonReport
from promptray.calibrate.evaluate import Progress, Settings
from promptray.calibrate.score_images import score_images
from promptray.calibrate.tables.csv_file import TableError
from promptray.calibrate.tables.image_folder import ImageFolder
from promptray.calibrate.tables.labels import LabelledImage, Labels
from promptray.calibrate.tables.scores import ScoreTable
from promptray.runtime.scorer import Scorer

Side = Scorer | ScoreTable


def compare_sides(
    first: Side,
    second: Side,
    *,
    folder: ImageFolder | None = None,
    head: str | None = None,
    labels: Labels | None = None,
    modality: str | None = None,
    settings: Settings | None = None,
    reference_rate: float = REFERENCE_RATE,
    bounds: Bounds | None = None,
    progress: Progress | None = None,
) -> ComparisonReport:
    """Score the images with the sides that are scorers, and compare.

    The images are those of the labels; without labels those of a table among the sides; otherwise all files
    of the folder.

    Parameters
    ----------
    first, second : Scorer or ScoreTable
        The reference and what is compared with it.
    folder : ImageFolder, optional
        Needed where a side is a scorer. Images of the tables are then looked up in it.
    head : str, optional
        Which one is compared, where a bundle has several.
    labels : Labels, optional
        Located in the folder (:func:`promptray.calibrate.score_images.locate`).
    modality : str, optional
        Of images that state none.
    settings, reference_rate, bounds
        As for :func:`promptray.calibrate.compare.compare`.
    progress : callable, optional

    Raises
    ------
    TableError
        ``table.image``, ``table.disjoint``.
    ScoringError
        ``score.head``.
    """
    sides = [
        _located(side, folder) if folder and isinstance(side, ScoreTable) else side
        for side in (first, second)
    ]
    tables: list[ScoreTable] = []
    for side in sides:
        if isinstance(side, ScoreTable):
            tables.append(side)
            continue
        if folder is None:
            raise ValueError("a scorer needs the folder of the images")
        images = _images(labels, sides, folder)
        tables.append(score_images(side, images, folder, head=head, modality=modality, progress=progress))
    return compare(
        tables[0],
        tables[1],
        labels=labels,
        settings=settings,
        reference_rate=reference_rate,
        bounds=bounds,
        hashes=(_hash(first), _hash(second)),
    )


def _images(labels: Labels | None, sides: Sequence[Side], folder: ImageFolder) -> list[LabelledImage]:
    if labels:
        return labels.images
    named = next((side.names for side in sides if isinstance(side, ScoreTable)), None)
    return [_image(name) for name in (named or folder.files)]


def _image(name: str) -> LabelledImage:
    """Return the image that a name means: the inverse of ``LabelledImage.name``."""
    file, _, frame = name.rpartition("#")
    if file and frame.isascii() and frame.isdigit() and int(frame) > 0:
        return LabelledImage(file, 0, frame=int(frame))
    return LabelledImage(name, 0)


def _located(table: ScoreTable, folder: ImageFolder) -> ScoreTable:
    """Return the table with its images named by their path below the folder."""
    images = [_image(name) for name in table.names]
    names = [replace(image, file=folder.resolve(image.file) or image.file).name for image in images]
    if len(set(names)) < len(names):
        raise TableError(
            "table.image",
            "two names of the table mean the same file",
            artefact=table.origin,
            cure="name every image once",
        )
    return replace(table, names=names)


def _hash(side: Side) -> str | None:
    return side.bundle.hash if isinstance(side, Scorer) else None
