"""Write a bundle: whole or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from promptray.runtime.bundle.manifest import FileFacts, Manifest, to_json
from promptray.runtime.bundle.names import MANIFEST, SEAL, check_names, folders_of
from promptray.runtime.bundle.outside import require_outside
from promptray.runtime.bundle.parse import parse_manifest
from promptray.runtime.bundle.reader import Bundle
from promptray.runtime.bundle.validate import check_manifest, referenced_files
from promptray.runtime.disk import sync_folder, write_new
from promptray.runtime.errors import BundleError


def write_bundle(
    path: str | os.PathLike[str], manifest: Manifest, files: Mapping[str, bytes | Path]
) -> Bundle:
    """Write a bundle directory and open it.

    The files are written and hashed in a directory beside `path`, which is renamed to it at the very end: an
    interrupted write leaves nothing under that name. The same manifest and files give the same bytes.

    Parameters
    ----------
    path : path
        The directory to make; it must not exist, its parent must.
    manifest : Manifest
        All facts but ``files``, which is replaced.
    files : mapping of str to bytes or Path
        Name in the bundle -> content, or a file to copy. No path given here is recorded.

    Returns
    -------
    Bundle

    Raises
    ------
    BundleError
        ``bundle.exists``; ``bundle.format`` or ``bundle.unsafe-path`` when the manifest breaks a rule;
        ``bundle.missing-file`` when it refers to a file that is not given.
    PromptRayError
        ``output.in-bundle``.

    Examples
    --------
    >>> bundle = write_bundle("chest.bundle", manifest, {"parity.json": b"{}"})  # doctest: +SKIP
    """
    target = Path(os.path.abspath(path))
    require_outside(target.parent)
    if os.path.lexists(target):
        raise _exists(target)
    _check_request(manifest, files)
    partial = target.parent / f".{target.name}.{secrets.token_hex(4)}.partial"
    try:
        partial.mkdir()
        _write_content(partial, manifest, files)
        written = Bundle.open(partial)
        _rename(partial, target)
    except BaseException:  # also KeyboardInterrupt: nothing half written stays
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_folder(target.parent)
    return Bundle(target, written.manifest, written.hash)


def _check_request(manifest: Manifest, files: Mapping[str, bytes | Path]) -> None:
    """Refuse before the first byte is written what the reader would refuse after the last."""
    check_names(files)
    check_manifest(manifest, files_known=False)
    for name in referenced_files(manifest):
        if name not in files:
            raise BundleError(
                "bundle.missing-file",
                "the manifest refers to a file that was not given",
                artefact=name,
                cure="add it to the files of the bundle",
            )


def _write_content(root: Path, manifest: Manifest, files: Mapping[str, bytes | Path]) -> None:
    folders = sorted({folder for name in files for folder in folders_of(name)})
    for folder in folders:
        (root / folder).mkdir()
    listed: dict[str, FileFacts] = {}
    for name in sorted(files):
        sha256, size = write_new(root / name, files[name])
        listed[name] = FileFacts(sha256=sha256, size=size)
    raw = to_json(msgspec.structs.replace(manifest, files=listed))
    parse_manifest(raw)  # a struct built in code was never held against the schema
    write_new(root / MANIFEST, raw)
    write_new(root / SEAL, f"{hashlib.sha256(raw).hexdigest()}  {MANIFEST}\n".encode())
    _sync(root, folders)


def _sync(root: Path, folders: Iterable[str]) -> None:
    for folder in folders:
        sync_folder(root / folder)
    sync_folder(root)


def _rename(partial: Path, target: Path) -> None:
    if os.path.lexists(target):  # POSIX would replace an empty directory made meanwhile
        raise _exists(target)
    try:
        partial.rename(target)
    except FileExistsError as error:
        raise _exists(target) from error


def _exists(target: Path) -> BundleError:
    return BundleError(
        "bundle.exists",
        "the output exists already, and a bundle is never changed",
        artefact=str(target),
        cure="choose another name, or remove it first",
    )
