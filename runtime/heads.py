"""Which head is meant, where a bundle may have several and only one can be dealt with."""

from __future__ import annotations

from promptray.runtime.bundle.manifest import Head, Manifest
from promptray.runtime.errors import ScoringError


def require_head(manifest: Manifest, name: str | None = None) -> Head:
    """Return the head of a name; without a name the only head.

    Raises
    ------
    ScoringError
        ``score.head`` for a name that the bundle has not, or none where it has several.
    """
    found = [head for head in manifest.heads if name in (None, head.name)]
    if len(found) == 1:
        return found[0]
    raise ScoringError(
        "score.head",
        "the bundle has no such head"
        if name is not None
        else "the bundle has several heads, and one must be chosen",
        artefact=manifest.name,
        expected=f"one of {', '.join(head.name for head in manifest.heads)}",
        found=None if name is None else ascii(name),
        cure="name it: `--head` on the command line",
    )
