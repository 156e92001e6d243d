"""Compare two sides, each a scorer or a table of scores: from images to the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from promptray.calibrate.compare import compare
from promptray.calibrate.compare_bounds import Bounds
from promptray.calibrate.comparison_report import ComparisonReport
from promptray.calibrate.evaluate import Progress, Settings
from promptray.calibrate.reference_threshold import REFERENCE_RATE
from promptray.calibrate.score_images import score_images
from promptray.calibrate.tables.csv_file import TableError
from promptray.calibrate.tables.image_folder import ImageFolder
from promptray.calibrate.tables.labels import LabelledImage, Labels
from promptray.calibrate.tables.scores import ScoreTable
from promptray.runtime.errors import ScoringError
from promptray.runtime.heads import require_head
from promptray.runtime.scorer import Scorer

Side = Scorer | ScoreTable


def compare_sides(
    first: Side,
    second: Side,
    *,
    folder: ImageFolder | None = None,
    head: str | None = None,
    reference_head: str | None = None,
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
    head, reference_head : str, optional
        As for `heads_of`.
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
    heads = heads_of(first, second, head, reference_head)
    sides = [
        _located(side, folder) if folder and isinstance(side, ScoreTable) else side
        for side in (first, second)
    ]
    tables: list[ScoreTable] = []
    for side, name in zip(sides, heads, strict=True):
        if isinstance(side, ScoreTable):
            tables.append(side)
            continue
        if folder is None:
            raise ValueError("a scorer needs the folder of the images")
        images = _images(labels, sides, folder)
        tables.append(score_images(side, images, folder, head=name, modality=modality, progress=progress))
    return compare(
        tables[0],
        tables[1],
        labels=labels,
        settings=settings,
        reference_rate=reference_rate,
        bounds=bounds,
        hashes=(_hash(first), _hash(second)),
    )


def heads_of(
    first: Side, second: Side, head: str | None = None, reference_head: str | None = None
) -> tuple[str | None, str | None]:
    """Return the name of the head that is compared of each side; a table has none.

    Parameters
    ----------
    first, second : Scorer or ScoreTable
        The reference and what is compared with it.
    head : str, optional
        Head of both sides, or of the second where `reference_head` is given; not needed of a bundle with one.
        A side that is a table takes none.
    reference_head : str, optional
        Head of the first side, where its name is another.

    Raises
    ------
    ScoringError
        ``score.head``, with the heads of each side; likewise for a head that is named and no side takes.
    """
    _require_taken(first, second, head, reference_head)
    try:
        return _head_of(first, head if reference_head is None else reference_head), _head_of(second, head)
    except ScoringError as error:
        raise ScoringError(
            error.code,
            error.message,
            artefact=error.artefact,
            expected=_heads_of_both(first, second),
            found=error.found,
            cure="name one of each: --head, and --reference-head where A's is another",
        ) from error


def _require_taken(first: Side, second: Side, head: str | None, reference_head: str | None) -> None:
    """Refuse a head that no side takes: a table would be compared as if it were that head's."""
    of_head = [second] if reference_head is not None else [first, second]
    for option, name, sides in (("--reference-head", reference_head, [first]), ("--head", head, of_head)):
        if name is not None and all(isinstance(side, ScoreTable) for side in sides):
            raise ScoringError(
                "score.head",
                f"{option} is given, but no bundle takes it",
                expected=_heads_of_both(first, second),
                found=name,
                cure=f"leave {option} out, or give the bundle in place of its table",
            )


def _head_of(side: Side, name: str | None) -> str | None:
    return require_head(side.bundle.manifest, name).name if isinstance(side, Scorer) else None


def _heads_of_both(first: Side, second: Side) -> str:
    return f"of A, the reference: {_head_names(first)}; of B: {_head_names(second)}"


def _head_names(side: Side) -> str:
    if isinstance(side, ScoreTable):
        return "a table, which has none"
    return "one of " + ", ".join(head.name for head in side.bundle.manifest.heads)


def _images(labels: Labels | None, sides: Sequence[Side], folder: ImageFolder) -> list[LabelledImage]:
    if labels:
        return labels.images
    named = next((side.names for side in sides if isinstance(side, ScoreTable)), None)
    return [_image(name, number) for number, name in enumerate(named or folder.files, 1)]


def _image(name: str, number: int) -> LabelledImage:
    """Return the image that a name means, the inverse of ``LabelledImage.name``, as the file of a number."""
    file, _, frame = name.rpartition("#")
    if file and frame.isascii() and frame.isdigit() and int(frame) > 0:
        return LabelledImage(file, number, frame=int(frame), counted="file")
    return LabelledImage(name, number, counted="file")


def _located(table: ScoreTable, folder: ImageFolder) -> ScoreTable:
    """Return the table with its images named by their path below the folder."""
    images = [_image(name, number) for number, name in enumerate(table.names, 1)]
    files = [folder.resolve(image.file, image.place) or image.file for image in images]
    names = [replace(image, file=file).name for image, file in zip(images, files, strict=True)]
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
