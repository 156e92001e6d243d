"""What a batch is, written beside its results: it goes on only as what it began."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import filelock
import msgspec

from promptray.runtime.backends import BackendFacts
from promptray.runtime.backends.host_settings import HostSettings
from promptray.runtime.bundle.outside import require_outside
from promptray.runtime.disk import write_whole
from promptray.runtime.errors import PromptRayError
from promptray.runtime.scorer import Scorer
from promptray.runtime.version import VERSION

#: Readers of Parquet folders pass over names that begin with ``_`` or ``.``.
MANIFEST, _LOCK = "_run.json", ".lock"
_PARTIAL = ".promptray.*.partial"


class ScorerFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a score depends on beside its image. Every worker must have the same."""

    software: str
    bundle: str
    """Hash of the bundle."""
    site_revision: int | None
    findings: int
    findings_sha256: str
    """Of their heads, keys and wordings, in the order of the scores."""
    backend: str
    backend_version: str
    precision: str
    gated_as: str | None
    threads: int | None
    """Of one call, where bits are to be the same: sums of other threads are rounded otherwise. Else None."""
    settings: HostSettings | None
    """Of the processor's backend, where they are others than those that graphs are gated with."""
    engines: str | None
    """Key of the set of engines that scores."""
    prepare: str

    @classmethod
    def of(cls, scorer: Scorer, *, reproducible: bool) -> ScorerFacts:
        """Return those of a scorer."""
        state, backend = scorer.prompts.state, scorer.backend
        named = [
            (item.finding.head, item.finding.key, item.finding.prompts, item.finding.negative_prompts)
            for item in state.active
        ]
        return cls(
            software=f"promptray {VERSION}",
            bundle=scorer.bundle.hash,
            site_revision=state.site_revision,
            findings=len(named),
            findings_sha256=hashlib.sha256(msgspec.json.encode(named)).hexdigest(),
            backend=backend.name,
            backend_version=backend.version,
            precision=backend.precision,
            gated_as=backend.gated_as,
            threads=backend.threads if reproducible else None,
            settings=backend.settings,
            engines=_key(backend),
            prepare=backend.prepare,
        )


class RunFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that a batch was begun with; the content of ``_run.json`` and of every part's metadata."""

    schema: Literal["promptray-batch-run"] = "promptray-batch-run"
    schema_version: Literal[1] = 1
    scorer: ScorerFacts
    modality: str | None
    frame: int | None
    strict: bool
    reproducible: bool
    images: int
    images_sha256: str
    """Of their paths as given, in their order."""
    part: int
    """Images of one part."""

    def to_json(self) -> bytes:
        """Return the bytes of ``_run.json``."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


@contextmanager
def claimed(folder: Path, facts: RunFacts) -> Iterator[None]:
    """Make a folder the one of a batch, or go on with it, and keep other calls out meanwhile.

    Raises
    ------
    PromptRayError
        ``batch.state`` for a folder of another batch, of other files, or one that is in use;
        ``output.in-bundle``.
    OSError
    """
    require_outside(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _require_own(folder)  # before there is a lock in it
        lock = filelock.FileLock(folder / _LOCK, timeout=0)
        with lock:
            _begin_or_go_on(folder, facts)
            _remove_unfinished(folder)
            yield
    except filelock.Timeout:
        raise _refused("another call is at work in the folder", cure="wait until it has ended") from None


def _begin_or_go_on(folder: Path, facts: RunFacts) -> None:
    manifest = folder / MANIFEST
    if not manifest.exists():
        write_whole(manifest, facts.to_json())
        return
    try:
        before = msgspec.json.decode(manifest.read_bytes(), type=RunFacts)
    except (OSError, msgspec.MsgspecError) as error:
        raise _refused(
            f"{MANIFEST} is damaged or of another version",
            found=type(error).__name__,
            cure="name a new folder with -o",
        ) from None
    for name, then, now in _fields(before, facts):
        if then != now:
            raise _refused(
                f"the folder holds a batch that was begun with another {name}",
                expected=str(then),
                found=str(now),
                cure="call it as it was begun, or name a new folder with -o",
            )


def _require_own(folder: Path) -> None:
    """Refuse a folder of other files. A call that died before it had written the manifest left ours."""
    others = set(folder.iterdir()) - {folder / _LOCK, *folder.glob(_PARTIAL)}
    if others and not (folder / MANIFEST).exists():
        raise _refused(
            "the folder holds files that no batch wrote",
            found=f"{len(others)} files",
            cure="name a new folder with -o",
        )


def _fields(before: RunFacts, now: RunFacts) -> Iterator[tuple[str, object, object]]:
    for name in ScorerFacts.__struct_fields__:
        yield name, getattr(before.scorer, name), getattr(now.scorer, name)
    for name in RunFacts.__struct_fields__:
        yield name, getattr(before, name), getattr(now, name)


def _remove_unfinished(folder: Path) -> None:
    """Remove what a call that was killed had begun to write; nothing of it was given as a result."""
    for pattern in (_PARTIAL, ".part-*.attempts.*"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def _key(backend: BackendFacts) -> str | None:
    return backend.engines.key if backend.engines else None


def _refused(
    message: str, *, expected: str | None = None, found: str | None = None, cure: str | None = None
) -> PromptRayError:
    return PromptRayError("batch.state", message, expected=expected, found=found, cure=cure)
