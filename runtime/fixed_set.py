"""Findings that form one unit: scored together or not at all, never edited one by one."""

from __future__ import annotations

from collections.abc import Iterable

from promptray.runtime.bundle.manifest import Head, Manifest
from promptray.runtime.errors import PromptError


def require_free(head: Head) -> None:
    """Refuse to add or remove a finding of a head whose set is fixed.

    Raises
    ------
    PromptError
        ``prompt.fixed-set``.
    """
    if head.set != "free":
        raise fixed_set(head.name)


def fixed_set(heads: str) -> PromptError:
    """Return the refusal of an edit."""
    return PromptError(
        "prompt.fixed-set",
        "the findings of this head form one unit: changing one would change the others' scores",
        artefact=heads,
        cure="build a bundle with the wanted findings",
    )


def require_whole(manifest: Manifest, head: Head, keys: Iterable[str]) -> None:
    """Refuse to score another set of a head's findings than the manifest's; their order does not matter.

    Raises
    ------
    PromptError
        ``prompt.fixed-set``, naming what is missing or foreign.
    """
    own = manifest.findings_of(head.name)
    odd = sorted({finding.key for finding in own} ^ set(keys))
    if odd:
        raise PromptError(
            "prompt.fixed-set",
            "the findings of this head form one unit, and not all of them, or others too, were to be scored",
            artefact=head.name,
            expected=f"the {len(own)} findings of the bundle",
            found=f"a difference in {', '.join(odd)[:200]}",
            cure="score all findings of the bundle",
        )
