"""What result files with a schema have in common: closed structures, the commit measured, checked bytes."""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

ROOT = Path(__file__).parents[1]
Milliseconds = Annotated[float, Meta(ge=0)]
Commit = Annotated[str, Meta(pattern=r"^[0-9a-f]{40}(-dirty)?(?!\n)$")]
"""What was measured; ``-dirty`` where files differed from it."""
Date = Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(?!\n)$")]


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the structures: immutable, keyword-only, closed."""


def commit() -> str:
    """Return the commit that is measured, and whether files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    return git("rev-parse", "HEAD") + (
        "-dirty" if git("status", "--porcelain", "--untracked-files=no") else ""
    )


def today() -> str:
    """Return the date, UTC."""
    return datetime.datetime.now(datetime.timezone.utc).date().isoformat()


def document(result: Struct) -> bytes:
    """Return the bytes of a result file, checked against the schema once more."""
    raw = msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n"
    msgspec.json.decode(raw, type=type(result))
    return raw
