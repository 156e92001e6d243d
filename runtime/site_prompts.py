"""What a site's directory says of the findings: prompts it added, and the bundle's that it does not use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from promptray.runtime.bank_file import pack, unpack
from promptray.runtime.bundle.manifest import BankRule, Code, Finding, Head, Manifest
from promptray.runtime.bundle.words import key_fault, quoted
from promptray.runtime.errors import BundleError, PromptError
from promptray.runtime.fixed_set import require_free
from promptray.runtime.prompts import BankEntry, PromptBank
from promptray.runtime.site import Kind, Site, SiteEntry
from promptray.runtime.wording import require_readable

Origin = Literal["bundle", "site", "session"]


@dataclass(frozen=True, eq=False)
class ActiveFinding:
    """A finding that is scored: what it is, its cached prompt, and where it comes from."""

    finding: Finding
    entry: BankEntry
    origin: Origin


def finding_of(entry: BankEntry, head: str) -> Finding:
    """Return the finding of a cached prompt (see `checked_finding`)."""
    prompts, negative_prompts = entry.texts
    return checked_finding(
        entry.key, prompts, negative_prompts, display=entry.display, code=entry.code, head=head
    )


def checked_finding(
    key: str,
    prompts: Sequence[str],
    negative_prompts: Sequence[str],
    *,
    display: str | None,
    code: Code | None,
    head: str,
) -> Finding:
    """Return a finding, checked against the schema.

    Raises
    ------
    PromptError
        ``prompt.invalid`` when its key, display name, wordings or code break the schema.
    """
    stated = {
        "key": key,
        "display": display or key,
        "prompts": list(prompts),
        "negative_prompts": list(negative_prompts),
        "head": head,
        "code": None if code is None else msgspec.to_builtins(code),
    }
    try:
        finding = msgspec.convert(stated, Finding)
        for text in (*finding.prompts, *finding.negative_prompts):
            require_readable(text)
        fault = key_fault(finding.key)
        if fault:
            raise msgspec.ValidationError(f"its key {fault}")
    except msgspec.ValidationError as error:
        raise PromptError(
            "prompt.invalid",
            f"this cannot be a finding: {error}",
            expected="a key of 1 to 128 characters, NFC, without leading space, slash or invisible "
            "character; a display name; wordings; a code with value, scheme and meaning, or none",
            found=ascii(key)[:80],
        ) from error
    return finding


def with_site(
    own: Mapping[str, Sequence[ActiveFinding]], manifest: Manifest, site: Site
) -> dict[str, list[ActiveFinding]]:
    """Return what each head scores at a site: the bundle's findings it did not remove, then its own.

    Raises
    ------
    BundleError
        ``bundle.foreign-bank`` for a prompt of another model; ``site.corrupt``.
    PromptError
        ``prompt.fixed-set`` where the site changes findings that form one unit.
    """
    for entry in (*site.entries("prompt"), *site.entries("removed-prompt")):
        head = manifest.head(entry.head)
        if head is None or head.set != "free":
            raise PromptError(
                "prompt.fixed-set",
                "the site directory changes findings that form one unit, or of a head that is not there",
                artefact=entry.head,
                found=entry.key,
                cure=f"`promptray prompts BUNDLE {_UNDO[entry.kind]} {quoted(entry.key)} "
                f"--head {entry.head}`",
            )
    removed = {(entry.head, entry.key) for entry in site.entries("removed-prompt")}
    active = {
        head: [item for item in items if (head, item.finding.key) not in removed]
        for head, items in own.items()
    }
    for stored in site.entries("prompt"):
        head = manifest.head(stored.head)
        if head is not None:
            entry_of = _entry(stored, head.bank, site)
            active[head.name].append(ActiveFinding(finding_of(entry_of, head.name), entry_of, "site"))
    return active


_UNDO = {"prompt": "remove", "removed-prompt": "restore"}


def same_prompts(one: Site, other: Site) -> bool:
    """Tell whether two states of a site say the same of the findings."""
    kinds: tuple[Kind, ...] = ("prompt", "removed-prompt")
    return all(one.entries(kind) == other.entries(kind) for kind in kinds)


def keep_prompts(
    site: Site, manifest: Manifest, head: Head, entries: Sequence[BankEntry], *, revision: int
) -> None:
    """Store encoded prompts of a head at a site, all or none.

    Parameters
    ----------
    revision : int
        The site's revision that the caller knows; another is refused.

    Raises
    ------
    PromptError
        ``prompt.exists`` when the site scores a finding of that key the next time it opens the bundle;
        ``prompt.fixed-set``.
    BundleError
        ``site.*``.
    """
    require_free(head)
    for entry in entries:
        if _used(site, manifest, head.name, entry.key):
            raise PromptError(
                "prompt.exists",
                "the bundle has a finding with this key, and this site still uses it",
                artefact=entry.key,
                cure=f"first `promptray prompts BUNDLE remove {quoted(entry.key)}`, or choose another key",
            )
    additions: list[tuple[str, bytes, dict[str, object]]] = [
        (entry.key, pack(PromptBank(head.bank, [entry])), {}) for entry in entries
    ]
    site.add_all("prompt", head.name, additions, revision=revision)


def forget_finding(
    site: Site, manifest: Manifest, key: str, *, head: str | None = None, revision: int | None = None
) -> None:
    """Stop using a finding at a site. Looks at no payload, so it also mends a site with a damaged one.

    Parameters
    ----------
    head : str, optional
        Its head; by default the free one or, where that has no such finding, the one that has.
    revision : int, optional
        The site's revision that the caller knows; another is refused.

    Raises
    ------
    PromptError
        ``prompt.unknown`` when this site does not use such a finding; ``prompt.fixed-set``.
    BundleError
        ``site.*``.
    """
    stored = _head_of(site, "prompt", key, head, manifest)
    if stored is not None:
        site.remove("prompt", stored, key, revision=revision)
        return
    own = [
        each for each in manifest.heads if head in (None, each.name) and _used(site, manifest, each.name, key)
    ]
    if not own:
        raise PromptError(
            "prompt.unknown",
            "this site uses no finding with this key",
            artefact=key,
            cure="`promptray inspect BUNDLE` lists the bundle's findings and the site's changes",
        )
    chosen = next((each for each in own if each.set == "free"), own[0])
    require_free(chosen)
    site.add_all("removed-prompt", chosen.name, [(key, b"", {})], revision=revision)


def restore_finding(site: Site, manifest: Manifest, key: str, *, head: str | None = None) -> None:
    """Use a finding of the bundle again that was removed at this site.

    Parameters
    ----------
    head : str, optional
        As for :func:`forget_finding`.

    Raises
    ------
    PromptError
        ``prompt.unknown`` when it was not removed; ``prompt.exists`` when the site has its own of that key.
    """
    if _head_of(site, "prompt", key, head, manifest) is not None:
        raise PromptError(
            "prompt.exists",
            "this site has its own prompt under this key",
            artefact=key,
            cure=f"first `promptray prompts BUNDLE remove {quoted(key)}`",
        )
    removed_from = _head_of(site, "removed-prompt", key, head, manifest)
    site.remove("removed-prompt", removed_from or head or manifest.heads[0].name, key)


def _head_of(site: Site, kind: Kind, key: str, head: str | None, manifest: Manifest) -> str | None:
    """Return the head of the site's entry of a key, the free head first; None where there is none."""
    heads = [entry.head for entry in site.entries(kind) if entry.key == key and head in (None, entry.head)]
    free = manifest.free_head
    return free.name if free is not None and free.name in heads else next(iter(heads), None)


def _used(site: Site, manifest: Manifest, head: str, key: str) -> bool:
    """Tell whether the bundle has such a finding and the site did not remove it."""
    removed = any((entry.head, entry.key) == (head, key) for entry in site.entries("removed-prompt"))
    return not removed and any(finding.key == key for finding in manifest.findings_of(head))


def _entry(stored: SiteEntry, rule: BankRule, site: Site) -> BankEntry:
    bank = unpack(site.read(stored), rule, artefact=f"site prompt {stored.key!r}")
    if bank.keys != (stored.key,):
        raise BundleError(
            "site.corrupt",
            "an entry of the site directory holds another prompt than its index says",
            artefact=stored.key,
            expected=repr(stored.key),
            found=", ".join(map(repr, bank.keys)) or "no prompt",
            cure=f"`promptray prompts BUNDLE remove {quoted(stored.key)}`, then add it again",
        )
    return bank.entries[0]
