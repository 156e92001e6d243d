"""The registry of families: one name, one module, imported only when used (torch is slow to import)."""

from __future__ import annotations

import importlib

from promptray.export.families.base import Family
from promptray.runtime.errors import BuildError

_MODULES = {"carzero": "promptray.export.families.carzero"}


def names() -> tuple[str, ...]:
    """Names of all families."""
    return tuple(_MODULES)


def family(name: str) -> Family:
    """Return a family by name.

    Raises
    ------
    BuildError
        ``family.unknown``.
    """
    if name not in _MODULES:
        raise BuildError(
            "family.unknown",
            "no family of this name",
            artefact=name,
            expected=", ".join(_MODULES),
            cure="run `promptray families`",
        )
    found: Family = importlib.import_module(_MODULES[name]).FAMILY
    return found
