"""The images of a batch: what is given, each once, in an order that a later call finds again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from promptray.calibrate.tables.text_lines import read_lines
from promptray.runtime.errors import PromptRayError


def read_list(path: Path) -> list[Path]:
    """Read a file of image paths: UTF-8, one a line; empty lines are passed over.

    Raises
    ------
    PromptRayError
        ``batch.images``.
    """
    try:
        lines = read_lines(path)
    except (OSError, ValueError) as error:
        raise PromptRayError(
            "batch.images",
            "the list of images cannot be read",
            artefact=path.name,
            expected="a text file in UTF-8, one path a line",
            found=type(error).__name__,
        ) from None
    return [Path(line) for line in lines if line.strip()]


def require_each_once(images: Sequence[Path]) -> None:
    """Refuse a batch without images, or with one twice: every image has exactly one result.

    Raises
    ------
    PromptRayError
        ``batch.images``; it counts images and does not name them.
    """
    places: dict[str, int] = {}
    for number, image in enumerate(images, 1):
        first = places.setdefault(os.path.normcase(os.path.abspath(image)), number)
        if first != number:
            raise PromptRayError(
                "batch.images",
                "an image is given twice, and every image has one result",
                found=f"numbers {first} and {number} of {len(images)} are the same file",
                cure="name it once: as a file, in a folder or in the list",
            )
    if not images:
        raise PromptRayError(
            "batch.images", "there is no image to score", cure="name files, folders, or a list with --list"
        )


def digest(images: Sequence[Path]) -> str:
    """Return a sha256 of the images' paths and their order, which a run goes on with or not at all."""
    found = hashlib.sha256()
    for image in images:
        found.update(os.fsencode(image) + b"\0")
    return found.hexdigest()
