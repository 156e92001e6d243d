"""Files as bundles and sites need them: no links, written whole or not at all, hashed as they pass.

Works alike on Linux and Windows; what only one of them has is asked for, not assumed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

CHUNK = 1 << 20
# Reparse tags of Windows (winnt.h): symbolic link, and mount point, which is what a junction is.
_LINK_TAGS = (0xA000000C, 0xA0000003)


def is_link(facts: os.stat_result) -> bool:
    """Tell whether ``os.lstat`` found a symbolic link or a Windows junction."""
    return stat.S_ISLNK(facts.st_mode) or getattr(facts, "st_reparse_tag", 0) in _LINK_TAGS


def hash_file(path: Path, progress: Callable[[int], None] | None = None) -> tuple[str, int]:
    """Return the sha256 and size of a file, in constant memory; `progress` gets the bytes so far."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
            if progress:
                progress(size)
    return digest.hexdigest(), size


def write_new(path: Path, content: bytes | Path) -> tuple[str, int]:
    """Write a file that must not exist yet, flush it to disk, and return the sha256 and size written.

    Parameters
    ----------
    path : Path
        The new file; its folder exists.
    content : bytes or Path
        The content, or a file to copy it from.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as target:
        if isinstance(content, Path):
            with content.open("rb") as source:
                while chunk := source.read(CHUNK):
                    digest.update(chunk)
                    size += target.write(chunk)
        else:
            digest.update(content)
            size = target.write(content)
        target.flush()
        os.fsync(target.fileno())
    return digest.hexdigest(), size


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that must not exist yet, whole or not at all: a full disk leaves nothing of it.

    Parameters
    ----------
    path : Path
        The new file; its folder exists.
    content : bytes
        The content.

    Raises
    ------
    OSError
        ``FileExistsError`` when there is something of this name, or the system's own refusal.
    """
    if os.path.lexists(path):  # POSIX would replace it
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    partial = path.parent / f".promptray.{secrets.token_hex(8)}.partial"
    try:
        write_new(partial, content)
        partial.rename(path)
    except BaseException:  # also KeyboardInterrupt
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Flush a folder's list of names; where folders cannot be opened (Windows) the file system does it."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
