"""How a manifest that breaks a rule is refused: by the field's path."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import NoReturn

from promptray.runtime.bundle.names import MANIFEST
from promptray.runtime.errors import BundleError


def unique(where: str, values: Iterable[Hashable]) -> None:
    """Refuse a value that occurs twice."""
    seen: set[Hashable] = set()
    for value in values:
        if value in seen:
            refuse(where, "is not unique", str(value))
        seen.add(value)


def refuse(where: str, message: str, found: str | None = None) -> NoReturn:
    """Raise ``bundle.format`` for the field at `where`."""
    raise BundleError(
        "bundle.format",
        f"{where} {message}",
        artefact=MANIFEST,
        found=found,
        cure="build the bundle again with `promptray build`",
    )
