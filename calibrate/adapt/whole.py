"""Files and folders that are there whole or not at all, so that a run that was killed can go on."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from promptray.runtime.disk import sync_folder, write_new


def replace_whole(path: Path, content: bytes) -> None:
    """Write a file, in place of an older one if there is one."""
    partial = _beside(path)
    try:
        write_new(partial, content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a folder to fill, which gets its name when the block ends without an error."""
    partial = _beside(path)
    partial.mkdir()
    try:
        yield partial
        sync_folder(partial)
        os.rename(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    sync_folder(path.parent)


def remove_partial(folder: Path) -> None:
    """Remove what killed runs left behind in a folder; nobody else may be writing there."""
    for left in folder.glob(".*.partial"):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
