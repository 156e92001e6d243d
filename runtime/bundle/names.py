"""File names inside a bundle: those that mean one file on every system, inside the bundle."""

from __future__ import annotations

import re
from collections.abc import Iterable

from promptray.runtime.errors import BundleError

MANIFEST = "bundle.json"
SEAL = "bundle.sha256"
SIGNATURE = "bundle.sig"
RESERVED = (MANIFEST, SEAL, SIGNATURE)
MOST_FILES = 4096
_MOST_PARTS = 8
_MOST_CHARACTERS = 200
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def check_names(names: Iterable[str]) -> None:
    """Refuse names that leave the bundle or collide on some system.

    Raises
    ------
    BundleError
        ``bundle.unsafe-path`` for a name outside the rules of the format document; ``bundle.format`` for
        two names that are one file on Windows, a name that is another's folder, or too many.
    """
    names = list(names)
    if len(names) > MOST_FILES:
        raise BundleError(
            "bundle.format",
            "too many files",
            artefact="files",
            expected=f"<= {MOST_FILES}",
            found=str(len(names)),
            cure="pack what nobody refers to into one file, or leave it out",
        )
    for name in names:
        if fault := _fault(name):
            raise BundleError(
                "bundle.unsafe-path",
                f"a file name {fault}",
                artefact=repr(name),
                expected="a relative name with '/' between parts of letters, digits and ._-",
                cure="do not use this bundle; get it again from its source",
            )
    _check_collisions(names)


def _fault(name: str) -> str | None:
    parts = name.split("/")
    if len(name) > _MOST_CHARACTERS or len(parts) > _MOST_PARTS:
        return "is too long"
    if not all(_PART.fullmatch(part) for part in parts):
        return "is not a plain relative name"
    if any(part.endswith(".") or _DEVICE.fullmatch(part) for part in parts):
        return "means something else on Windows"
    if name.lower() in RESERVED:
        return "is reserved"
    return None


def _check_collisions(names: list[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise BundleError(
                "bundle.format",
                "two file names differ only in upper and lower case",
                artefact=name,
                found=f"also {other}",
                cure="rename one and build the bundle again",
            )
    for name in names:
        for folder in folders_of(name):
            if folder.lower() in seen:
                raise BundleError(
                    "bundle.format",
                    "a file name is also the folder of another",
                    artefact=folder,
                    found=f"also {name}",
                    cure="rename one and build the bundle again",
                )


def folders_of(name: str) -> list[str]:
    """Return the folders a name lies in, outermost first: ``a/b/c`` gives ``a`` and ``a/b``."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
