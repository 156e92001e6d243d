"""What a site adds to a bundle, in a directory of its own, keyed by the bundle's hash.

A bundle never changes. Prompts added on the spot, findings a site does not use, its calibrations, and engines
built on its device are entries of a site directory. Its files, and what a crash may leave of them, are the
business of `promptray.runtime.site_files`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from promptray.runtime.bundle.outside import require_outside
from promptray.runtime.bundle.words import quoted
from promptray.runtime.disk import sync_folder
from promptray.runtime.errors import BundleError, PromptError, PromptRayError
from promptray.runtime.site_files import (
    ENTRIES,
    OF_NO_HEAD,
    PAYLOADS,
    SHA256,
    Kind,
    SiteEntry,
    clean,
    corrupt,
    load_index,
    locked,
    new_entry,
    newest_index,
    store_index,
    store_payload,
)

__all__ = ["Kind", "Site", "SiteEntry", "default_root"]


def default_root() -> Path:
    """Return the folder of site directories in the user's data folder; it need not exist."""
    import platformdirs  # asked for the system's folders only where no --site is given

    return platformdirs.user_data_path("promptray", appauthor=False) / "sites"


class Site:
    """The entries a site added to one bundle, as they were when opened; made by `open`.

    Reading never writes, so a read-only disk is fine. An instance keeps the revision it opened (or wrote),
    whatever others write later; `outdated` tells that they did. Reading is safe from several threads; writers
    exclude each other by a lock file, across threads and processes.

    Attributes
    ----------
    folder : Path
        ``<root>/<bundle hash>``; made by the first write.

    Examples
    --------
    >>> site = Site.open(None, bundle.hash)                                     # doctest: +SKIP
    >>> site.add("prompt", "findings", "rib fracture", payload)                 # doctest: +SKIP
    >>> [entry.key for entry in site.entries("prompt")]                         # doctest: +SKIP
    ['rib fracture']
    """

    def __init__(self, folder: Path, readonly: bool, timeout: float) -> None:
        self.folder = folder
        # Its name first: if an index is written in between, this one counts as outdated, which does no harm.
        self._newest = newest_index(folder)
        self._index = load_index(folder, folder.name)
        self._readonly = readonly
        self._timeout = timeout

    @classmethod
    def open(
        cls,
        root: str | os.PathLike[str] | None,
        bundle_hash: str,
        *,
        readonly: bool = False,
        timeout: float = 10.0,
    ) -> Site:
        """Read the index of a bundle's site; a bundle without one has revision 0 and no entries.

        Parameters
        ----------
        root : path or None
            Folder of site directories, which must exist; None takes `default_root`, which need not.
        bundle_hash : str
            ``Bundle.hash``.
        readonly : bool
            Refuse `add` and `remove`.
        timeout : float
            Seconds a write waits for another writer.

        Raises
        ------
        BundleError
            ``site.not-found``, ``site.corrupt``.
        PromptRayError
            ``output.in-bundle``: what is added to it would be in a bundle.
        """
        if not SHA256.fullmatch(bundle_hash):
            raise ValueError("bundle_hash is not a sha256 in lower-case hex")
        base = default_root() if root is None else Path(os.path.abspath(root))
        if root is not None:
            require_outside(base)
        # Not Path.is_dir: it raises for a path that is too long for the system.
        if root is not None and not os.path.isdir(base):
            raise BundleError(
                "site.not-found",
                "the site directory does not exist",
                artefact=str(base),
                cure="correct the path, or make the directory: an empty one is a site without additions",
            )
        return cls(base / bundle_hash, readonly, timeout)

    @property
    def outdated(self) -> bool:
        """Whether another instance wrote since. It costs a listing of a few names: ask before every score."""
        return newest_index(self.folder) != self._newest

    def reopened(self) -> Site:
        """Return the site as it is now.

        Raises
        ------
        BundleError
            ``site.corrupt``; ``site.not-found`` where what was there is there no longer: a share that is
            no longer mounted must not take probabilities and flags away without a word.
        """
        found = Site(self.folder, self._readonly, self._timeout)
        if found.revision < self.revision:
            raise BundleError(
                "site.not-found",
                "the site directory is gone, or older than it was when it was opened",
                artefact=str(self.folder.parent),
                expected=f"revision {self.revision} or later",
                found=f"revision {found.revision}" if found.revision else "no site of this bundle",
                cure="mount or restore it; or open the bundle again to score with what is there now",
            )
        return found

    @property
    def revision(self) -> int:
        """Number of the index read or written last; 0 when there is none. Results name it."""
        return self._index.revision

    def require_writable(self) -> None:
        """Refuse a site that cannot be written, before long work whose result would be lost. Writes nothing.

        Raises
        ------
        BundleError
            ``site.unwritable``.
        """
        if self._readonly:
            raise self._unwritable("it was opened for reading only")
        nearest = next(each for each in (self.folder, *self.folder.parents) if os.path.lexists(each))
        if not os.path.isdir(nearest) or not os.access(nearest, os.W_OK):
            raise self._unwritable("no right to write there, or no folder")

    def entries(self, kind: Kind) -> tuple[SiteEntry, ...]:
        """Return the entries of a kind in the order they were added."""
        return tuple(entry for entry in self._index.entries if entry.kind == kind)

    def read(self, entry: SiteEntry) -> bytes:
        """Return the payload of an entry after comparing its hash.

        Raises
        ------
        BundleError
            ``site.corrupt``; ``site.changed`` when another process removed the entry meanwhile.
        """
        if entry.payload is None:
            raise ValueError(f"an entry of kind {entry.kind!r} has no payload")
        name = f"{ENTRIES}/{entry.payload.sha256}"
        try:
            with (self.folder / name).open("rb") as file:
                content = file.read(entry.payload.size + 1)
        except OSError as error:
            raise self._lost(entry, name, error) from error
        found = hashlib.sha256(content).hexdigest()
        if (found, len(content)) != (entry.payload.sha256, entry.payload.size):
            more = "more than " if len(content) > entry.payload.size else ""
            raise corrupt(
                f"the payload of {entry.kind} {entry.key!r} was changed",
                self.folder / name,
                expected=f"sha256 {entry.payload.sha256}, {entry.payload.size} bytes",
                found=f"sha256 {found}, {more}{min(len(content), entry.payload.size)} bytes",
                cure=_add_again(entry),
            )
        return content

    def verify(self) -> list[SiteEntry]:
        """Hash every payload and return all entries; raises what `read` raises."""
        for entry in self._index.entries:
            if entry.payload:
                self.read(entry)
        return list(self._index.entries)

    def add(
        self,
        kind: Kind,
        head: str,
        key: str,
        payload: bytes = b"",
        facts: Mapping[str, Any] | None = None,
    ) -> SiteEntry:
        """Add one entry (see `add_all`)."""
        return self.add_all(kind, head, [(key, payload, facts or {})])[0]

    def add_all(
        self,
        kind: Kind,
        head: str,
        additions: Sequence[tuple[str, bytes, Mapping[str, Any]]],
        *,
        revision: int | None = None,
        replace: bool = False,
    ) -> list[SiteEntry]:
        """Add entries, all or none, durably: when this returns, a power cut does not undo it.

        Parameters
        ----------
        kind : {'prompt', 'removed-prompt', 'calibration', 'engine', 'tuning', 'decode'}
            All have a payload but the removal of one of the bundle's prompts and times; engines may have one.
        head : str
            The head whose findings they are; empty for engines, times and gates of decoding.
        additions : sequence of (key, payload, facts)
            The finding's key, or the engines', unique within kind and head; the content, for a prompt a bank
            file of one prompt, for a calibration its document; JSON values kept with it.
        revision : int, optional
            Refuse (``site.changed``) unless this is still the site's revision.
        replace : bool
            Take the place of entries of the same key instead of being refused.

        Raises
        ------
        PromptError
            ``prompt.exists``; ``prompt.invalid`` for a key that the schema refuses.
        BundleError
            ``site.busy``, ``site.unwritable``, ``site.corrupt``.
        """
        payloads = [payload for _, payload, _ in additions]
        if any(bool(payload) not in PAYLOADS[kind] for payload in payloads):
            raise ValueError(f"{kind!r}: every entry has a payload, but for removed prompts and times")
        if (head == "") != (kind in OF_NO_HEAD):
            raise ValueError(f"{kind!r}: findings are of a head, engines, times and decoding of none")
        added = [new_entry(kind, head, key, payload, facts) for key, payload, facts in additions]

        def append(entries: list[SiteEntry]) -> list[SiteEntry]:
            if replace:
                new = {(entry.kind, entry.head, entry.key) for entry in added}
                entries = [each for each in entries if (each.kind, each.head, each.key) not in new]
            taken = {other.key for other in entries if (other.kind, other.head) == (kind, head)}
            for entry in added:
                if entry.key in taken:
                    raise PromptError(
                        "prompt.exists",
                        f"the site has a {kind} entry of this key already",
                        artefact=entry.key,
                        cure="remove it first, or choose another key",
                    )
                taken.add(entry.key)
            return [*entries, *added]

        self._write(append, payloads, revision)
        return added

    def remove(self, kind: Kind, head: str, key: str, *, revision: int | None = None) -> None:
        """Remove an entry; its payload is not looked at, so this mends a site with a damaged one.

        Parameters
        ----------
        kind, head, key : str
            Of the entry.
        revision : int, optional
            As for `add_all`.

        Raises
        ------
        PromptError
            ``prompt.unknown``.
        BundleError
            ``site.busy``, ``site.unwritable``, ``site.corrupt``.
        """

        def drop(entries: list[SiteEntry]) -> list[SiteEntry]:
            gone = (kind, head, key)
            kept = [entry for entry in entries if (entry.kind, entry.head, entry.key) != gone]
            if len(kept) == len(entries):
                raise PromptError(
                    "prompt.unknown",
                    f"the site has no {kind} entry of this key",
                    artefact=key,
                    cure="`promptray inspect BUNDLE` shows the entries",
                )
            return kept

        self._write(drop, [], revision)

    def _write(
        self,
        change: Callable[[list[SiteEntry]], list[SiteEntry]],
        payloads: Sequence[bytes],
        revision: int | None = None,
    ) -> None:
        if self._readonly:
            raise self._unwritable("it was opened for reading only")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            sync_folder(self.folder.parent)
            with locked(self.folder, self._timeout):
                index = load_index(self.folder, self.folder.name)
                if revision is not None and index.revision != revision:
                    raise self._changed(index.revision)
                if index.revision == 0:  # from now on payloads without an index are no accident
                    index = store_index(self.folder, index, [])
                entries = change(list(index.entries))
                for payload in filter(None, payloads):
                    store_payload(self.folder, payload)
                self._index = store_index(self.folder, index, entries)
                self._newest = newest_index(self.folder)
                clean(self.folder, self._index)
        except OSError as error:
            raise self._unwritable(error.strerror or type(error).__name__) from error

    def _changed(self, found: int) -> BundleError:
        return BundleError(
            "site.changed",
            "another process changed the site directory since it was opened; nothing was written",
            artefact=str(self.folder),
            expected=f"revision {self.revision}",
            found=f"revision {found}",
            cure="open the bundle again and repeat the change",
        )

    def _lost(self, entry: SiteEntry, name: str, error: OSError) -> PromptRayError:
        if load_index(self.folder, self.folder.name).revision != self.revision:
            return BundleError(
                "site.changed",
                f"another process changed the site directory while revision {self.revision} was open",
                artefact=f"{entry.kind} {entry.key!r}",
                cure="open it again",
            )
        return corrupt(
            f"the payload of {entry.kind} {entry.key!r} is missing or unreadable ({error.strerror})",
            self.folder / name,
            expected=f"sha256 {entry.payload.sha256 if entry.payload else ''}",
            cure=_add_again(entry),
        )

    def _unwritable(self, reason: str) -> BundleError:
        return BundleError(
            "site.unwritable",
            f"the site directory cannot be written: {reason}",
            artefact=str(self.folder),
            cure="choose a writable directory with `--site DIR`",
        )


def _add_again(entry: SiteEntry) -> str:
    if entry.kind == "engine":
        return f"`promptray engine BUNDLE --remove {entry.key}`, then build it again"
    if entry.kind == "decode":
        return f"`promptray gate-decode BUNDLE --remove {quoted(entry.key)}`, then gate it again"
    if entry.kind == "calibration":
        return (
            f"`promptray calibrate BUNDLE --remove {quoted(entry.key)} --head {entry.head}`, "
            "then calibrate it again"
        )
    return f"`promptray prompts BUNDLE remove {quoted(entry.key)}`, then add it again"
