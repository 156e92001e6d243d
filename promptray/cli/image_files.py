"""The images that a command is given: files, and folders of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def image_files(images: tuple[Path, ...]) -> Iterator[Path]:
    """Expand folders into all that is in them, sorted.

    Nothing in a folder is passed over: a link to nowhere, a linked or unreadable folder, a pipe are given
    too, and are refused when they are read, so that no study is lost unseen.
    """
    for path in images:
        if path.is_dir():
            yield from sorted(_inside(path))
        else:
            yield path


def _inside(root: Path) -> list[Path]:
    found: list[Path] = []

    def unreadable(error: OSError) -> None:
        found.append(Path(error.filename))

    for folder, folders, names in os.walk(root, onerror=unreadable):
        linked = [name for name in folders if (Path(folder) / name).is_symlink()]
        found += [Path(folder) / name for name in (*names, *linked)]
    return found
