"""Score the images of a table through the public scorer, so that what is measured is what is deployed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from promptray.calibrate.same_picture import picture_sha256
from promptray.calibrate.tables.csv_file import TableError
from promptray.calibrate.tables.image_folder import ImageFolder
from promptray.calibrate.tables.labels import LabelledImage, Labels
from promptray.calibrate.tables.scores import Kind, ScoreTable
from promptray.runtime.heads import require_head
from promptray.runtime.prepared import Prepared
from promptray.runtime.result import Refused, Result
from promptray.runtime.scorer import Scorer

Missing = Literal["error", "count"]
Visit = Callable[[LabelledImage, Result], None]


def locate(labels: Labels, folder: ImageFolder, missing: Missing = "error") -> Labels:
    """Return the labels with every file named by its path below the folder.

    Parameters
    ----------
    labels : Labels
    folder : ImageFolder
    missing : {"error", "count"}
        Whether a file that is not there is an error, or will be counted among the refused images.

    Raises
    ------
    TableError
        ``table.image``: absent or ambiguous files, or two rows that mean the same file.
    """
    if missing == "error":
        folder.require({image.file: image.place for image in labels.images}, labels.table)
    located = [
        replace(image, file=folder.resolve(image.file, f"{labels.table}, {image.place}") or image.file)
        for image in labels.images
    ]
    lines: dict[str, int] = {}
    for image in located:
        first = lines.setdefault(image.name, image.line)
        if first != image.line:
            raise TableError(
                "table.image",
                "two rows mean the same file",
                artefact=f"{labels.table}, line {image.line}, column file",
                found=f"it is in line {first} already",
                cure="delete one of them",
            )
    return replace(labels, images=located)


def score_images(
    scorer: Scorer,
    images: Sequence[LabelledImage],
    folder: ImageFolder,
    *,
    head: str | None = None,
    modality: str | None = None,
    progress: Callable[[str, str, float], None] | None = None,
    visit: Visit | None = None,
) -> ScoreTable:
    """Score images against every finding of one head of a scorer.

    An image that is refused gets no score; its code is in the table's `refused`.

    Parameters
    ----------
    scorer : Scorer
    images : sequence of LabelledImage
        Their files are paths below the folder (see :func:`locate`).
    folder : ImageFolder
    head : str, optional
        Its name, where the bundle has several.
    modality : str, optional
        Of images whose row states none.
    progress : callable, optional
        Called with (stage, message, fraction).
    visit : callable, optional
        Called with each scored image and its result, which is not kept.

    Raises
    ------
    ScoringError
        ``score.head``.
    """
    own = require_head(scorer.bundle.manifest, head).name
    keys = tuple(finding.key for finding in scorer.prompts.of_head(own))
    kinds: tuple[Kind, ...] = ("logit", "softmax", "probability")
    values = {kind: np.full((len(images), len(keys)), np.nan) for kind in kinds}
    flags = np.full((len(images), len(keys)), np.nan)
    refused: dict[str, str] = {}
    pictures: list[str | None] = [None] * len(images)
    last: list[str] = []  # of the image that is being scored

    def seen(prepared: Prepared) -> None:
        last[:] = [picture_sha256(prepared.network_input.picture)]

    done = 0
    for (of_modality, frame), rows in _batches(images, modality).items():
        sources = [folder.files.get(images[row].file, images[row].file) for row in rows]
        outcomes = scorer.score_many(sources, seen=seen, modality=of_modality, frame=frame)
        for row, outcome in zip(rows, outcomes, strict=True):
            done += 1
            if progress and done * 100 // len(images) > (done - 1) * 100 // len(images):  # each percent
                progress("score", f"{done} of {len(images)}", done / len(images))
            if isinstance(outcome, Refused):
                refused[images[row].place] = outcome.error.code
                continue
            (pictures[row],) = last
            scores = [outcome.scores[own, key] for key in keys]
            for kind in kinds:
                values[kind][row] = [getattr(score, kind) for score in scores]  # None becomes NaN
            flags[row] = [np.nan if score.flag is None else score.flag for score in scores]
            if visit:
                visit(images[row], outcome)
    return ScoreTable(
        origin=scorer.bundle.manifest.name,
        names=[image.name for image in images],
        keys=keys,
        values={
            kind: found for kind, found in values.items() if kind == "logit" or not np.isnan(found).all()
        },
        flags=None if np.isnan(flags).all() else flags,
        refused=refused,
        head=own,
        thresholds=scorer.prompts.state.thresholds_of(own),
        pictures=pictures,
    )


def _batches(
    images: Sequence[LabelledImage], modality: str | None
) -> dict[tuple[str | None, int | None], list[int]]:
    """Return rows by what is declared of them: a declaration holds for a whole call."""
    batches: dict[tuple[str | None, int | None], list[int]] = {}
    for row, image in enumerate(images):
        batches.setdefault((image.modality or modality, image.frame), []).append(row)
    return batches
