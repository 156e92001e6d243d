"""Open a bundle and load its files; what is loaded is exactly what was hashed."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from promptray.runtime.bundle.manifest import FileFacts, Manifest
from promptray.runtime.bundle.names import MANIFEST, SEAL, SIGNATURE, folders_of
from promptray.runtime.bundle.parse import LARGEST_MANIFEST, parse_manifest
from promptray.runtime.disk import hash_file, is_link
from promptray.runtime.errors import BundleError
from promptray.runtime.limits import check_bundle_file

_SEAL_PATTERN = re.compile(rb"([0-9a-f]{64})  bundle\.json\n")
_COPY_AGAIN = "copy the bundle again from its source, then run `promptray verify BUNDLE`"


Progress = Callable[[str, int, int], None]
"""Told the name of the file at hand, bytes hashed so far and bytes in all."""


@dataclass(frozen=True)
class CheckedFile:
    """One file of a bundle after its hash was compared."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle whose manifest, seal and set of files were checked; made by `open`.

    Opening does not read the listed files. `read` hashes each one it loads; `verify_files` hashes all.
    Instances are immutable and may be shared between threads.

    Attributes
    ----------
    path : Path
        The directory, absolute.
    manifest : Manifest
        The content of ``bundle.json``.
    hash : str
        sha256 of the bytes of ``bundle.json``; stands for the whole bundle.

    Examples
    --------
    >>> bundle = Bundle.open("chest.bundle")                       # doctest: +SKIP
    >>> graph = bundle.read(bundle.manifest.graph("image").file)   # doctest: +SKIP
    """

    path: Path
    manifest: Manifest
    hash: str

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Check the seal, the manifest, and the names, sizes and kinds of all files.

        Raises
        ------
        BundleError
            Codes ``bundle.*``; the format document lists what is refused.
        """
        root = Path(os.path.abspath(path))  # Path.absolute keeps "..", which errors should not show
        raw = _read_manifest(root)
        digest = hashlib.sha256(raw).hexdigest()
        _check_seal(root, digest)
        manifest = parse_manifest(raw)
        _check_tree(root, manifest)
        return cls(root, manifest, digest)

    @property
    def short_hash(self) -> str:
        """First 12 digits of `hash`, for people."""
        return self.hash[:12]

    def read(self, name: str) -> bytes:
        """Return the content of a listed file after comparing its hash.

        Raises
        ------
        BundleError
            ``bundle.unlisted-file`` for a name the manifest does not list, ``bundle.missing-file``,
            ``bundle.unsafe-path`` when it became a link or a pipe since opening, ``bundle.hash``.
        """
        facts = self.manifest.files.get(name)
        if facts is None:
            raise BundleError(
                "bundle.unlisted-file",
                "the manifest lists no such file",
                artefact=name,
                cure="`promptray inspect BUNDLE` shows the files",
            )
        try:
            _require_ordinary(self.path, name)
            with (self.path / name).open("rb") as file:
                content = file.read(facts.size + 1)  # one more, to notice a file that grew
        except OSError as error:
            raise _unreadable(name, error) from error
        found = FileFacts(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        if found.size > facts.size:  # not all of it was read
            found = _file_facts(self.path, name)
        _compare(name, facts, found)
        return content

    def verify_files(self, progress: Progress | None = None) -> list[CheckedFile]:
        """Hash every file, in constant memory.

        Parameters
        ----------
        progress : callable, optional
            Called about once a megabyte; the bytes are those of the whole bundle.

        Returns
        -------
        list of CheckedFile
            All files, ``bundle.json`` first; only when every one of them is right.

        Raises
        ------
        BundleError
            What `open` raises, as the directory is looked at anew; or the fault of the first wrong file,
            its message naming all wrong ones.
        """
        if Bundle.open(self.path).hash != self.hash:
            raise BundleError(
                "bundle.seal",
                "the bundle was replaced by another since it was opened",
                artefact=MANIFEST,
                expected=f"sha256 {self.hash}",
                cure="open it again",
            )
        total = sum(facts.size for facts in self.manifest.files.values())
        checked = [CheckedFile(MANIFEST, self.hash, (self.path / MANIFEST).stat().st_size)]
        faults: list[BundleError] = []
        done = 0
        for name, facts in self.manifest.files.items():
            try:
                _compare(name, facts, _file_facts(self.path, name, _reporter(progress, name, done, total)))
            except BundleError as fault:
                faults.append(fault)
            checked.append(CheckedFile(name, facts.sha256, facts.size))
            done += facts.size
        if faults:
            raise _merged(faults)
        return checked


def _reporter(progress: Progress | None, name: str, start: int, total: int) -> Callable[[int], None] | None:
    if progress is None:
        return None
    return lambda size: progress(name, start + size, total)


def _merged(faults: list[BundleError]) -> BundleError:
    first = faults[0]
    if len(faults) == 1:
        return first
    names = ", ".join(str(fault.artefact) for fault in faults)
    return BundleError(
        first.code,
        f"{len(faults)} files are wrong: {names}; the first: {first.message}",
        artefact=first.artefact,
        expected=first.expected,
        found=first.found,
        cure=first.cure,
    )


def _read_manifest(root: Path) -> bytes:
    # Not the methods of Path: they raise for a path that is too long for the system.
    if not os.path.isdir(root):
        raise BundleError(
            "bundle.not-found",
            "no such directory" if not os.path.exists(root) else "a bundle is a directory, this is a file",
            artefact=str(root),
            cure="give the path of a directory that `promptray build` wrote",
        )
    try:
        _require_ordinary(root, MANIFEST)
        with (root / MANIFEST).open("rb") as file:
            return file.read(LARGEST_MANIFEST + 1)
    except OSError as error:
        raise BundleError(
            "bundle.not-found",
            f"the directory holds no readable {MANIFEST} ({error.strerror})",
            artefact=str(root),
            cure="give the path of a directory that `promptray build` wrote",
        ) from error


def _check_seal(root: Path, digest: str) -> None:
    try:
        _require_ordinary(root, SEAL)
        with (root / SEAL).open("rb") as file:
            seal = file.read(1024)
    except OSError as error:
        raise _unreadable(SEAL, error) from error
    match = _SEAL_PATTERN.fullmatch(seal)
    if match is None:
        raise BundleError(
            "bundle.seal",
            "the seal is damaged",
            artefact=SEAL,
            expected=f"sha256 {digest}, two spaces, {MANIFEST!r} and a line feed",
            found=repr(seal[:80]),
            cure=_COPY_AGAIN,
        )
    if match[1].decode() != digest:
        raise BundleError(
            "bundle.seal",
            f"{MANIFEST} and its seal {SEAL} disagree: one of them was changed",
            artefact=MANIFEST,
            expected=f"sha256 {match[1].decode()}",
            found=f"sha256 {digest}",
            cure=_COPY_AGAIN,
        )


def _require_ordinary(root: Path, name: str) -> None:
    """Refuse what is no file before it is opened: opening a named pipe waits for a writer, for ever."""
    facts = os.lstat(root / name)
    if is_link(facts):
        raise _unsafe(name, "is a link")
    if not stat.S_ISREG(facts.st_mode):
        raise _unsafe(name, "is no ordinary file")


def _check_tree(root: Path, manifest: Manifest) -> None:
    """Compare the directory with the manifest: the same files, of the same size, none of them a link."""
    folders = {folder for name in manifest.files for folder in folders_of(name)}
    sizes: dict[str, int] = {}
    for name, facts in _walk(root, folders):
        if name not in manifest.files and name not in (MANIFEST, SEAL):
            raise _unlisted(name)
        if not stat.S_ISREG(facts.st_mode):
            raise _unsafe(name, "is no ordinary file")
        sizes[name] = facts.st_size
    for name, listed in manifest.files.items():
        check_bundle_file(name, listed.size)
        if name not in sizes:
            raise _unreadable(name, None)
        if sizes[name] != listed.size:
            _compare(name, listed, _file_facts(root, name))


def _walk(root: Path, folders: set[str]) -> Iterator[tuple[str, os.stat_result]]:
    """Yield name and facts of every file below `root`, refusing links and folders that are not listed."""
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(root / folder) as entries:
                found = sorted((entry.name, os.lstat(entry.path)) for entry in entries)
        except OSError as error:  # no permission, or it went away meanwhile
            raise BundleError(
                "bundle.missing-file",
                f"the folder cannot be listed ({error.strerror})",
                artefact=f"{folder}/" if folder else str(root),
                cure=_COPY_AGAIN,
            ) from error
        for base, facts in found:
            name = f"{folder}/{base}" if folder else base
            if is_link(facts):
                raise _unsafe(name, "is a link")
            if not stat.S_ISDIR(facts.st_mode):
                yield name, facts
            elif name in folders:
                pending.append(name)
            else:
                raise _unlisted(f"{name}/")


def _file_facts(root: Path, name: str, progress: Callable[[int], None] | None = None) -> FileFacts:
    try:
        sha256, size = hash_file(root / name, progress)
    except OSError as error:
        raise _unreadable(name, error) from error
    return FileFacts(sha256=sha256, size=size)


def _compare(name: str, expected: FileFacts, found: FileFacts) -> None:
    if found != expected:
        raise BundleError(
            "bundle.hash",
            "the file is not the one the manifest lists",
            artefact=name,
            expected=f"sha256 {expected.sha256}, {expected.size} bytes",
            found=f"sha256 {found.sha256}, {found.size} bytes",
            cure=_COPY_AGAIN,
        )


def _unreadable(name: str, error: OSError | None) -> BundleError:
    missing = error is None or isinstance(error, FileNotFoundError)
    return BundleError(
        "bundle.missing-file",
        "the file is missing" if missing else f"the file cannot be read ({error.strerror if error else ''})",
        artefact=name,
        cure=_COPY_AGAIN,
    )


def _unlisted(name: str) -> BundleError:
    if name == SIGNATURE:
        return BundleError(
            "bundle.unlisted-file",
            "the bundle carries a signature, which this software cannot check",
            artefact=name,
            cure=f"`pip install --upgrade promptray`; or delete {SIGNATURE} to use the bundle unsigned",
        )
    return BundleError(
        "bundle.unlisted-file",
        "the manifest does not list this",
        artefact=name,
        cure="delete it if it came by itself (thumbnails, notes), or copy the bundle again; "
        "what a site adds belongs into the site directory",
    )


def _unsafe(name: str, fault: str) -> BundleError:
    return BundleError(
        "bundle.unsafe-path",
        f"a name in the bundle {fault}",
        artefact=name,
        expected="ordinary files and folders",
        cure="copy the bundle again with its links resolved (`cp -rL`)",
    )
