"""Cache of build stages, keyed by the content of everything they depend on.

A stage is a pure function from artefacts to a folder of files. Its key is the hash of its inputs and of the
code that makes it, libraries included; a second build redoes only what changed, and an interrupted one goes
on where it stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import platformdirs
from filelock import FileLock

import promptray.export
import promptray.runtime
from promptray.runtime.disk import hash_file

_HASHES = "sha256.json"


def default_cache() -> Path:
    """Return the user's cache folder for build stages."""
    return Path(platformdirs.user_cache_dir("promptray")) / "build"


def kept_bytes(root: Path) -> int:
    """Return the size of all that a cache keeps; nothing of it is ever removed but by its owner."""
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink())


class StageCache:
    """A folder of finished stages.

    Parameters
    ----------
    root : Path
        Made when needed. Nothing removes what is in it; it may be deleted whenever no build runs.
    *packages : module
        Whose code makes the stages, beside that of export and runtime.
    """

    def __init__(self, root: Path, *packages: ModuleType) -> None:
        self._root = root
        self._code = [code_sha256(promptray.export, promptray.runtime, *packages), library_versions()]

    def key(self, stage: str, inputs: Mapping[str, object]) -> str:
        """Return the key of a stage for these inputs."""
        text = json.dumps([stage, self._code, inputs], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def run(self, stage: str, key: str, produce: Callable[[Path], None]) -> tuple[Path, bool]:
        """Return the folder of a stage, producing it unless it is there and whole.

        Parameters
        ----------
        stage : str
            Name, for the folder.
        key : str
            From :meth:`key`.
        produce : callable
            Writes the stage's files into the folder it is given.

        Returns
        -------
        (Path, bool)
            The folder, and whether it came from the cache.
        """
        final = self._root / f"{stage}-{key[:32]}"
        if _is_whole(final):
            return final, True
        self._root.mkdir(parents=True, exist_ok=True)
        partial = self._root / f".{stage}-{secrets.token_hex(6)}"
        partial.mkdir()
        try:
            produce(partial)
            hashes = {path.name: hash_file(path)[0] for path in sorted(partial.iterdir())}
            (partial / _HASHES).write_text(json.dumps(hashes))
            with FileLock(self._root / ".lock"):
                if not _is_whole(final):  # else another process was first, and may be reading its files
                    shutil.rmtree(final, ignore_errors=True)
                    os.replace(partial, final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return final, False

    def work(self, stage: str, key: str) -> Path:
        """Return a folder for the unfinished work of a stage that takes hours: it outlives a kill.

        The stage itself goes on there, and removes it when :meth:`run` has its result.
        """
        return self._root / f"{stage}-{key[:32]}.work"


def _is_whole(folder: Path) -> bool:
    """Tell whether a cached stage still has the bytes it was made with."""
    try:
        hashes = json.loads((folder / _HASHES).read_text())
        return all(hash_file(folder / name)[0] == digest for name, digest in hashes.items())
    except (OSError, ValueError, AttributeError):
        return False


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that the package asks for, but those of its developers."""
    found = {}
    for requirement in importlib.metadata.requires("promptray") or []:
        name = re.match(r"[\w.-]+", requirement)
        if name and not re.search(r"extra == .(dev|fuzz)", requirement):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # of another system or extra
                found[name[0]] = importlib.metadata.version(name[0])
    return found


def code_sha256(*packages: ModuleType) -> str:
    """Return a hash of the sources of packages, so that changed code never reuses an old result."""
    digest = hashlib.sha256()
    for package in packages:
        root = Path(package.__path__[0])
        for path in sorted(root.rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
