"""What a site's directory says of the findings: prompts it added, and the bundle's that it does not use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from promptray.runtime.bundle.manifest import BankRule, Code, Finding, Head, Manifest, key_fault
from promptray.runtime.errors import BundleError, PromptError
from promptray.runtime.fixed_set import require_free
from promptray.runtime.prompts import BankEntry, PromptBank, pack, unpack
from promptray.runtime.site import Site, SiteEntry
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


def with_site(own: Sequence[ActiveFinding], rule: BankRule, head: Head, site: Site) -> list[ActiveFinding]:
    """Return what is scored at a site: the bundle's findings it did not remove, then its own.

    Raises
    ------
    BundleError
        ``bundle.foreign-bank`` for a prompt of another model; ``site.corrupt``.
    PromptError
        ``prompt.fixed-set`` where the site changes findings that form one unit.
    """
    removed = _removed(site)
    changed = [entry.key for entry in site.entries("prompt")] or sorted(removed)
    if changed and head.bank != "free":
        raise PromptError(
            "prompt.fixed-set",
            "the site directory changes findings that form one unit",
            artefact=head.name,
            found=", ".join(changed)[:200],
            cure=f'`promptray prompts BUNDLE {"restore" if removed else "remove"} "{changed[0]}"`',
        )
    active = [item for item in own if item.finding.key not in removed]
    for stored in site.entries("prompt"):
        entry = _entry(stored, rule, site)
        active.append(ActiveFinding(finding_of(entry, head.name), entry, "site"))
    return active


def keep_prompts(
    site: Site, manifest: Manifest, rule: BankRule, entries: Sequence[BankEntry], *, revision: int
) -> None:
    """Store encoded prompts at a site, all or none.

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
    require_free(manifest.head)
    for entry in entries:
        if _is_own(manifest, entry.key) and entry.key not in _removed(site):
            raise PromptError(
                "prompt.exists",
                "the bundle has a finding with this key, and this site still uses it",
                artefact=entry.key,
                cure=f'first `promptray prompts BUNDLE remove "{entry.key}"`, or choose another key',
            )
    additions: list[tuple[str, bytes, dict[str, object]]] = [
        (entry.key, pack(PromptBank(rule, [entry])), {}) for entry in entries
    ]
    site.add_all("prompt", additions, revision=revision)


def forget_finding(site: Site, manifest: Manifest, key: str) -> None:
    """Stop using a finding at a site. Looks at no payload, so it also mends a site with a damaged one.

    Raises
    ------
    PromptError
        ``prompt.unknown`` when this site does not use such a finding; ``prompt.fixed-set``.
    """
    if any(entry.key == key for entry in site.entries("prompt")):
        site.remove("prompt", key)
    elif _is_own(manifest, key) and key not in _removed(site):
        require_free(manifest.head)
        site.add("removed-prompt", key)
    else:
        raise PromptError(
            "prompt.unknown",
            "this site uses no finding with this key",
            artefact=key,
            cure="`promptray inspect BUNDLE` lists the bundle's findings and the site's changes",
        )


def restore_finding(site: Site, key: str) -> None:
    """Use a finding of the bundle again that was removed at this site.

    Raises
    ------
    PromptError
        ``prompt.unknown`` when it was not removed; ``prompt.exists`` when the site has its own of that key.
    """
    if any(entry.key == key for entry in site.entries("prompt")):
        raise PromptError(
            "prompt.exists",
            "this site has its own prompt under this key",
            artefact=key,
            cure=f'first `promptray prompts BUNDLE remove "{key}"`',
        )
    site.remove("removed-prompt", key)


def _entry(stored: SiteEntry, rule: BankRule, site: Site) -> BankEntry:
    bank = unpack(site.read(stored), rule, artefact=f"site prompt {stored.key!r}")
    if bank.keys != (stored.key,):
        raise BundleError(
            "site.corrupt",
            "an entry of the site directory holds another prompt than its index says",
            artefact=stored.key,
            expected=repr(stored.key),
            found=", ".join(map(repr, bank.keys)) or "no prompt",
            cure=f'`promptray prompts BUNDLE remove "{stored.key}"`, then add it again',
        )
    return bank.entries[0]


def _removed(site: Site) -> set[str]:
    return {entry.key for entry in site.entries("removed-prompt")}


def _is_own(manifest: Manifest, key: str) -> bool:
    return any(finding.key == key for finding in manifest.findings)
