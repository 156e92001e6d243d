"""The site's images through the public scorer, each once: logits and maps of every head."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.accept.report import Images, Part
from promptray.calibrate.bench.system import OF_THE_IMAGE
from promptray.calibrate.evaluation_report import RefusedImage
from promptray.calibrate.same_picture import set_sha256
from promptray.calibrate.score_images import score_images
from promptray.calibrate.tables.image_folder import ImageFolder
from promptray.calibrate.tables.labels import LabelledImage
from promptray.runtime.disk import hash_file
from promptray.runtime.result import Result
from promptray.runtime.scorer import Scorer

Progress = Callable[[str, str, float], None]


@dataclass(frozen=True, eq=False)
class OneAnswer:
    """What a head says of one image: logits (findings,), maps (findings, rows, columns) where it has some."""

    logits: NDArray[np.float64]
    maps: NDArray[np.float32] | None


@dataclass(eq=False)
class Scored:
    """Images that were scored, by their place among those given, from 0.

    Attributes
    ----------
    keys : dict of str to tuple of str
        Findings of every head that has some, in score order.
    with_maps : set of str
        Heads that give maps.
    pictures : dict of int to str
        Hash of each picture as the network saw it.
    answers : dict of int to dict of str to OneAnswer
        By head.
    refused : dict of str to str
        Image -> code.
    """

    keys: dict[str, tuple[str, ...]]
    with_maps: set[str]
    pictures: dict[int, str] = field(default_factory=dict)
    answers: dict[int, dict[str, OneAnswer]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def add(self, place: int, result: Result) -> None:
        """Take an image's answers out of its result."""
        self.answers[place] = {
            head: OneAnswer(
                np.array([result.scores[head, key].logit for key in keys]),
                np.stack([result.grid((head, key)) for key in keys]) if head in self.with_maps else None,
            )
            for head, keys in self.keys.items()
        }


def score_all(
    scorer: Scorer,
    images: Sequence[LabelledImage],
    folder: ImageFolder,
    modality: str | None,
    progress: Progress,
    *,
    answers: bool = True,
) -> Scored:
    """Score images as ``promptray score`` does; refused ones are counted.

    Parameters
    ----------
    scorer : Scorer
    images : sequence of LabelledImage
    folder : ImageFolder
    modality : str or None
        Of images whose row states none.
    progress : callable
    answers : bool
        Whether to keep them, or only who was refused.
    """
    heads = scorer.bundle.manifest.heads
    of_heads = {head.name: tuple(each.key for each in scorer.prompts.of_head(head.name)) for head in heads}
    found = Scored(
        {name: keys for name, keys in of_heads.items() if keys},
        {head.name for head in heads if head.map is not None},
    )
    place = {image.place: number for number, image in enumerate(images)}

    def visit(image: LabelledImage, result: Result) -> None:
        if answers:
            found.add(place[image.place], result)

    table = score_images(
        scorer, images, folder, head=heads[0].name, modality=modality, progress=progress, visit=visit
    )
    found.refused = table.refused
    found.pictures = {
        number: picture for number, picture in enumerate(table.pictures or []) if picture is not None
    }
    return found


def images_report(
    images: Sequence[LabelledImage], folder: ImageFolder, scored: Scored, refused_at_most: float
) -> tuple[Images, Part]:
    """Return what the images were, and whether few enough were refused."""
    hashes = "\n".join(_sha256(folder.files.get(image.file)) for image in images)
    by_code = dict(sorted(Counter(scored.refused.values()).items()))
    report = Images(
        given=len(images),
        scored=len(scored.pictures),
        refused=RefusedImage.each(scored.refused),
        refused_by_code=by_code,
        refused_at_most=refused_at_most,
        files_sha256=hashlib.sha256(hashes.encode()).hexdigest(),
        pictures_sha256=set_sha256([scored.pictures[place] for place in sorted(scored.pictures)]),
    )
    share = len(scored.refused) / len(images)
    codes = "".join(f", {count} x {code}" for code, count in by_code.items())
    reason = f"{len(scored.refused)} of {len(images)} images refused ({share:.1%}{codes})"
    reason = f"{reason}; {refused_at_most:.1%} at most"
    failed = sum(count for code, count in by_code.items() if not code.startswith(OF_THE_IMAGE))
    if failed:
        reason += f"; {failed} of them by no fault of the image, of which none is allowed"
    enough = share <= refused_at_most and report.scored > 0 and not failed
    return report, Part(name="images", verdict="passed" if enough else "refused", reason=reason)


def _sha256(file: Path | None) -> str:
    """Return the hash of a file; nothing of one that is not there, or that the door could not read either."""
    if file is None or not file.is_file():  # to read a named pipe would wait for a writer, for ever
        return ""
    try:
        return hash_file(file)[0]
    except OSError:
        return ""
