"""Files and folders that are there whole or not at all, so that a run that was killed can go on."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from promptray.runtime.disk import sync_folder, write_new
from promptray.runtime.errors import PromptRayError


def replace_whole(path: Path, content: bytes) -> None:
    """Write a file, in place of an older one if there is one.

    Raises
    ------
    PromptRayError
        ``output.unwritable``.
    """
    partial = _beside(path)
    with writing(path):
        try:
            write_new(partial, content)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(path.parent)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a folder to fill, which gets its name when the block ends without an error.

    Raises
    ------
    PromptRayError
        ``output.unwritable``, also for what the block could not write.
    """
    partial = _beside(path)
    with writing(path):
        partial.mkdir()
        try:
            yield partial
            sync_folder(partial)
            os.rename(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        sync_folder(path.parent)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file or folder that the system does not let us write.

    Raises
    ------
    PromptRayError
        ``output.unwritable``.
    """
    try:
        yield
    except OSError as error:
        raise PromptRayError(
            "output.unwritable",
            f"the system refused to write: {error.strerror or type(error).__name__}",
            artefact=path.name,
            cure="make room, or give this user the right to write there; then the same command goes on",
        ) from None


def remove_partial(folder: Path) -> None:
    """Remove what killed runs left behind in a folder; nobody else may be writing there."""
    for left in folder.glob(".*.partial"):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
