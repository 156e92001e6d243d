"""The files of a site directory: its index, its payloads, and what a crash may leave.

Section 8 of ``docs/bundle-format.md`` is the format: an index whose name holds its own hash, and payloads
named by theirs, so that no byte can change unseen. `promptray.runtime.site` is the interface to it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from promptray.runtime.bundle.fields import Key, Sha256
from promptray.runtime.bundle.manifest import FileFacts
from promptray.runtime.bundle.parse import strict_json
from promptray.runtime.disk import is_link, sync_folder, write_new
from promptray.runtime.errors import BundleError, PromptError

FORMAT_VERSION = 4
Kind = Literal["prompt", "removed-prompt", "calibration", "engine", "tuning", "decode"]
#: Whether an entry has a payload. Engines of a library that keeps none (ONNX Runtime) are only facts.
PAYLOADS: dict[Kind, tuple[bool, ...]] = {
    "prompt": (True,),
    "removed-prompt": (False,),
    "calibration": (True,),
    "engine": (True, False),
    "tuning": (False,),
    "decode": (True,),
}
#: Kinds that are of a machine, and not of a head's findings.
OF_NO_HEAD: tuple[Kind, ...] = ("engine", "tuning", "decode")

_INDEX = re.compile(r"site\.([0-9]{8})\.([0-9a-f]{64})\.json")
SHA256 = re.compile(r"[0-9a-f]{64}")
_TEMPORARY = re.compile(r"tmp\.[0-9a-f]+")
LOCK, ENTRIES = "site.lock", "entries"
_LARGEST_INDEX = 16 << 20
_ANOTHER = (
    "delete the bundle's folder in the site directory; add the prompts, calibrate and build the engines again"
)
_UPGRADE = "`pip install --upgrade promptray`"
_ATTEMPTS, _PAUSE = 20, 0.01


# A head's name as in the manifest, or none.
_Head = Annotated[str, Meta(max_length=32, pattern=r"^([a-z0-9][a-z0-9_-]*)?(?!\n)$")]


class SiteEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One addition: what it is, its payload's hash, and facts for whoever reads the kind."""

    kind: Kind
    head: _Head
    """The head whose finding it is; empty for engines, times and decoding, which are of all heads."""
    key: Key
    payload: FileFacts | None
    facts: dict[str, Any]


class SiteIndex(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of ``site.<revision>.<sha256>.json``."""

    format: Literal["promptray-site"] = "promptray-site"
    format_version: Literal[4] = 4
    bundle: Sha256
    revision: int
    entries: list[SiteEntry]


def new_entry(kind: Kind, head: str, key: str, payload: bytes, facts: Mapping[str, Any]) -> SiteEntry:
    """Return an entry as it will be read back.

    Raises
    ------
    PromptError
        ``prompt.invalid`` for a key that the schema refuses, or facts that JSON cannot hold.
    """
    listed = FileFacts(sha256=hashlib.sha256(payload).hexdigest(), size=len(payload)) if payload else None
    entry = SiteEntry(kind=kind, head=head, key=key, payload=listed, facts=dict(facts))
    try:  # a struct built in code is not checked until it is read back
        raw = json.dumps(msgspec.to_builtins(entry), ensure_ascii=False, allow_nan=False).encode()
        return msgspec.convert(strict_json(raw), SiteEntry)
    except ValueError as error:  # msgspec.ValidationError and UnicodeEncodeError are among them
        raise PromptError(
            "prompt.invalid",
            f"the key or its facts cannot be stored: {error}",
            artefact=ascii(key)[:80],
            expected="1 to 128 characters, no control characters, slashes or leading space",
        ) from error


@contextlib.contextmanager
def locked(folder: Path, timeout: float) -> Iterator[None]:
    """Keep other writers out, across threads and processes.

    Raises
    ------
    BundleError
        ``site.busy`` after `timeout` seconds.
    """
    import filelock  # writers only: scoring does not pay for it

    try:
        lock = filelock.FileLock(folder / LOCK, timeout=timeout)
        lock.acquire()
    except filelock.Timeout as error:
        raise BundleError(
            "site.busy",
            f"another process has been writing for {timeout:g} s",
            artefact=str(folder / LOCK),
            cure="wait for it and try again",
        ) from error
    try:
        yield
    finally:
        lock.release()


def load_index(folder: Path, bundle_hash: str) -> SiteIndex:
    """Read the index of the highest revision; a writer may replace it meanwhile, so look more than once."""
    for _ in range(_ATTEMPTS):
        present, names = _survey(folder)
        if not names and not present:
            return SiteIndex(bundle=bundle_hash, revision=0, entries=[])
        top = [name for name in names if name[:13] == max(names)[:13]]
        if len(top) > 1:
            raise corrupt("there are two indexes of one revision", folder, found=" and ".join(sorted(top)))
        with contextlib.suppress(FileNotFoundError):
            if top:
                return _parse_index(folder / top[0], bundle_hash)
        time.sleep(_PAUSE)
    raise corrupt("there are payloads but no index", folder, expected="site.<revision>.<sha256>.json")


def newest_index(folder: Path) -> str | None:
    """Return the name of the index of the highest revision, which is not read; None where there is none."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(folder, error) from error
    return max(filter(_INDEX.fullmatch, names), default=None)


def _survey(folder: Path) -> tuple[bool, list[str]]:
    """Tell whether payloads were ever written, and the names of the indexes; refuse what does not belong."""
    present, names = False, []
    for name, facts in _listing(folder):
        if stat.S_ISDIR(facts.st_mode) and name == ENTRIES:
            present = True
        elif stat.S_ISREG(facts.st_mode) and _INDEX.fullmatch(name):
            names.append(name)
        elif not stat.S_ISREG(facts.st_mode) or not (name == LOCK or _TEMPORARY.fullmatch(name)):
            raise _foreign(folder / name)
    for name, facts in _listing(folder / ENTRIES) if present else ():
        if not stat.S_ISREG(facts.st_mode) or not (SHA256.fullmatch(name) or _TEMPORARY.fullmatch(name)):
            raise _foreign(folder / ENTRIES / name)
    return present, names


def _listing(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield name and facts of what a folder holds, in order; nothing for a folder that does not exist."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unreadable(folder, error) from error
    for name in names:
        try:
            facts = os.lstat(folder / name)
        except FileNotFoundError:
            continue  # a writer cleaned it up meanwhile
        if is_link(facts):
            raise _foreign(folder / name)
        yield name, facts


def _parse_index(path: Path, bundle_hash: str) -> SiteIndex:
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST_INDEX + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise corrupt(f"the index cannot be read ({error.strerror})", path) from error
    match = _INDEX.fullmatch(path.name)
    found = hashlib.sha256(raw).hexdigest()
    if match is None or found != match[2]:
        expected = match[2] if match else ""
        raise corrupt("the index was changed", path, expected=f"sha256 {expected}", found=f"sha256 {found}")
    try:
        document = strict_json(raw)
        _check_version(document, path)
        index = msgspec.convert(document, SiteIndex)
    except (ValueError, msgspec.ValidationError) as error:
        raise corrupt(f"the index is not one that this software reads: {error}", path) from error
    if (index.bundle, index.revision) != (bundle_hash, int(match[1])):
        raise corrupt(
            "the index belongs to another bundle or revision",
            path,
            expected=f"bundle {bundle_hash}, revision {int(match[1])}",
            found=f"bundle {index.bundle}, revision {index.revision}",
        )
    names = [(entry.kind, entry.head, entry.key) for entry in index.entries]
    if len(set(names)) != len(names):
        raise corrupt("an entry occurs twice in the index", path)
    if any((entry.payload is not None) not in PAYLOADS[entry.kind] for entry in index.entries):
        raise corrupt("a prompt or calibration has no payload, or a removed finding has one", path)
    if any((entry.head == "") != (entry.kind in OF_NO_HEAD) for entry in index.entries):
        raise corrupt("a finding is of no head, or engines or times are of one", path)
    return index


def _check_version(document: Any, path: Path) -> None:
    version = document.get("format_version") if isinstance(document, dict) else None
    if version != FORMAT_VERSION:
        raise BundleError(
            "bundle.version",
            f"this software reads site format {FORMAT_VERSION}",
            artefact=str(path),
            expected=f"format_version {FORMAT_VERSION}",
            found=f"format_version {version!r}",
            cure=_ANOTHER if type(version) is int and version < FORMAT_VERSION else _UPGRADE,
        )


def store_payload(folder: Path, payload: bytes) -> None:
    """Write a payload under its hash; until an index lists it, readers do not see it."""
    (folder / ENTRIES).mkdir(exist_ok=True)
    sync_folder(folder)
    _store(folder / ENTRIES / hashlib.sha256(payload).hexdigest(), payload)


def store_index(folder: Path, before: SiteIndex, entries: list[SiteEntry]) -> SiteIndex:
    """Write the index of the next revision."""
    index = SiteIndex(bundle=before.bundle, revision=before.revision + 1, entries=entries)
    document = json.dumps(msgspec.to_builtins(index), indent=2, ensure_ascii=False, allow_nan=False)
    raw = document.encode() + b"\n"
    _store(folder / f"site.{index.revision:08}.{hashlib.sha256(raw).hexdigest()}.json", raw)
    return index


def _store(path: Path, content: bytes) -> None:
    temporary = path.parent / f"tmp.{secrets.token_hex(8)}"
    try:
        write_new(temporary, content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def clean(folder: Path, index: SiteIndex) -> None:
    """Remove what no reader needs; what another process holds open (Windows) goes with a later write."""
    used = {entry.payload.sha256 for entry in index.entries if entry.payload}
    for name, _ in list(_listing(folder)):
        match = _INDEX.fullmatch(name)
        if _TEMPORARY.fullmatch(name) or (match and int(match[1]) < index.revision):
            with contextlib.suppress(OSError):
                (folder / name).unlink()
    for name, _ in list(_listing(folder / ENTRIES)):
        if name not in used:
            with contextlib.suppress(OSError):
                (folder / ENTRIES / name).unlink()


def _unreadable(folder: Path, error: OSError) -> BundleError:
    return corrupt(f"the folder cannot be read ({error.strerror})", folder)


def _foreign(path: Path) -> BundleError:
    return corrupt("this does not belong into a site directory", path, cure="delete it")


def corrupt(
    message: str,
    path: Path,
    *,
    expected: str | None = None,
    found: str | None = None,
    cure: str = _ANOTHER,
) -> BundleError:
    """Return the refusal of a site directory that does not match its own hashes."""
    return BundleError("site.corrupt", message, artefact=str(path), expected=expected, found=found, cure=cure)
