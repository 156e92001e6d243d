"""The findings a scorer scores now: the bundle's, the site's, and those of this session."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

from promptray.runtime.bundle.manifest import BankRule, Code, Finding
from promptray.runtime.errors import PromptError
from promptray.runtime.graphs import BoundHead, BundleContent, Graphs
from promptray.runtime.picture import Notice, notice
from promptray.runtime.prompts import BankEntry, PromptBank, pack, unpack
from promptray.runtime.site import Site

T = TypeVar("T")
Origin = Literal["bundle", "site", "session"]
_KEY = re.compile(r"^[^\s\x00-\x1f/\\][^\x00-\x1f/\\]{0,127}$")


@dataclass(frozen=True, eq=False)
class ActiveSet:
    """One consistent state: findings, bank and bound head. Replaced whole, never changed."""

    findings: tuple[Finding, ...]
    origins: tuple[Origin, ...]
    bank: PromptBank
    head: BoundHead
    notices: tuple[Notice, ...]


class ActivePrompts:
    """``scorer.prompts``: list, add and remove findings while scoring goes on. Thread-safe.

    A change makes a new state beside the old one and swaps it in; a score that is under way finishes with
    the state it began with.

    Examples
    --------
    >>> scorer.prompts.add("rib fracture", "There is rib fracture.")     # doctest: +SKIP
    >>> scorer.prompts.remove("rib fracture")                            # doctest: +SKIP
    """

    def __init__(self, bundle: BundleContent, graphs: Graphs, own: PromptBank, site: Site | None) -> None:
        self._bundle = bundle
        self._graphs = graphs
        self._site = site
        self._lock = threading.Lock()
        findings = list(bundle.manifest.findings)
        origins: list[Origin] = ["bundle"] * len(findings)
        bank = own
        if site is not None:
            findings, origins, bank = _with_site(findings, bank, site)
        self._state = self._activate(tuple(findings), tuple(origins), bank)

    @property
    def state(self) -> ActiveSet:
        """The current state; take it once per score."""
        return self._state

    def __len__(self) -> int:
        return len(self._state.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._state.findings)

    def __contains__(self, key: object) -> bool:
        return any(finding.key == key for finding in self._state.findings)

    def origin(self, key: str) -> Origin:
        """Return where a finding comes from: the bundle, the site directory, or this session."""
        state = self._state
        self._require_known(key, state)
        return state.origins[state.bank.keys.index(key)]

    def add(
        self,
        key: str,
        prompt: str | None = None,
        *,
        display: str | None = None,
        code: Code | None = None,
        keep: bool = False,
        allow_empty: bool = False,
    ) -> Finding:
        """Encode a prompt with the bundle's text graph and score it from now on.

        Parameters
        ----------
        key : str
            Name of the finding in results: 1 to 128 characters, no slash, no control character.
        prompt : str, optional
            The wording; by default the bundle's template filled with the key.
        display : str, optional
            Name for people; by default the key.
        code : Code, optional
            Coded concept (value, scheme, meaning).
        keep : bool
            Store it in the site directory, so that it is there the next time the bundle is opened.
        allow_empty : bool
            Accept a prompt of which cleaning leaves nothing. All such prompts score the same.

        Raises
        ------
        PromptError
            ``prompt.exists``, ``prompt.invalid``, ``prompt.empty``, ``prompt.no-text-graph`` or
            ``prompt.fixed-set``.
        BundleError
            ``site.*`` when `keep` is set and the site directory cannot be written.
        """
        _require_key(key)
        self._require_editable()
        template = self._bundle.manifest.text.template if self._bundle.manifest.text else "{}"
        wording = template.format(key) if prompt is None else prompt
        entry = self._graphs.encode(key, wording, allow_empty=allow_empty)
        finding = Finding(
            key=key,
            display=display or key,
            prompt=wording,
            head=self._bundle.manifest.heads[0].name,
            code=code,
        )
        self._append([(finding, entry)], keep=keep)
        return finding

    def remove(self, key: str, *, keep: bool = False) -> None:
        """Stop scoring a finding; with `keep`, also for later sessions at this site.

        Raises
        ------
        PromptError
            ``prompt.unknown`` or ``prompt.fixed-set``.
        """
        self._require_editable()
        with self._lock:
            state = self._state
            self._require_known(key, state)
            at = state.bank.keys.index(key)
            if keep:
                self._forget(key, state.origins[at])
            self._state = self._activate(
                _without(state.findings, at), _without(state.origins, at), state.bank.without(key)
            )

    def export(self, keys: Iterable[str] | None = None) -> bytes:
        """Return cached prompts as bytes that another installation of the same model can import.

        Raises
        ------
        PromptError
            ``prompt.unknown``.
        """
        state = self._state
        chosen = list(keys) if keys is not None else list(state.bank.keys)
        for key in chosen:
            self._require_known(key, state)
        entries = {entry.key: entry for entry in state.bank}
        return pack(PromptBank(state.bank.rule, (entries[key] for key in chosen)))

    def import_(
        self, data: bytes, *, keep: bool = False, artefact: str = "imported prompts"
    ) -> list[Finding]:
        """Add prompts that were encoded elsewhere with the same model; needs no text graph.

        Raises
        ------
        BundleError
            ``bundle.foreign-bank`` when they were made with another model, rule or precision.
        PromptError
            ``prompt.exists`` when a key is taken; then nothing is added.
        """
        self._require_editable()
        bank = unpack(data, self._rule(), artefact=artefact)
        head = self._bundle.manifest.heads[0].name
        added = []
        for entry in bank:
            _require_key(entry.key)
            added.append((Finding(key=entry.key, display=entry.key, prompt=entry.prompt, head=head), entry))
        self._append(added, keep=keep)
        return [finding for finding, _ in added]

    def _append(self, added: list[tuple[Finding, BankEntry]], *, keep: bool) -> None:
        with self._lock:
            state = self._state
            bank = state.bank
            for _, entry in added:
                bank = bank.with_entry(entry)
            origin: Origin = "site" if keep else "session"
            new = self._activate(
                (*state.findings, *(finding for finding, _ in added)),
                (*state.origins, *[origin] * len(added)),
                bank,
            )
            if keep:
                self._writable_site().add_all("prompt", [_stored(bank.rule, *pair) for pair in added])
            self._state = new

    def _activate(
        self, findings: tuple[Finding, ...], origins: tuple[Origin, ...], bank: PromptBank
    ) -> ActiveSet:
        return ActiveSet(findings, origins, bank, self._graphs.bind(bank), _prompt_notices(bank))

    def _forget(self, key: str, origin: Origin) -> None:
        if origin == "site":
            self._writable_site().remove("prompt", key)
        elif origin == "bundle":
            self._writable_site().add("removed-prompt", key)

    def _writable_site(self) -> Site:
        if self._site is None:
            raise PromptError(
                "prompt.invalid",
                "this scorer was opened without a site directory, so nothing can be kept",
                cure="open it with site=DIR, or without site=None",
            )
        return self._site

    def _rule(self) -> BankRule:
        return self._state.bank.rule

    def _require_editable(self) -> None:
        head = self._bundle.manifest.heads[0]
        if head.bank != "free":
            raise PromptError(
                "prompt.fixed-set",
                "the findings of this head form one unit: changing one would change the others' scores",
                artefact=head.name,
                cure="build a bundle with the wanted findings",
            )

    def _require_known(self, key: str, state: ActiveSet) -> None:
        if key not in state.bank.keys:
            raise PromptError(
                "prompt.unknown",
                "no finding has this key",
                artefact=key,
                expected=f"one of {', '.join(state.bank.keys) or '(none)'}",
            )


def _stored(rule: BankRule, finding: Finding, entry: BankEntry) -> tuple[str, bytes, dict[str, object]]:
    """Return a prompt as the site directory keeps it: key, bank file of one prompt, facts."""
    code = None if finding.code is None else [finding.code.value, finding.code.scheme, finding.code.meaning]
    facts: dict[str, object] = {"display": finding.display, "code": code}
    return finding.key, pack(PromptBank(rule, [entry])), facts


def _with_site(
    findings: list[Finding], bank: PromptBank, site: Site
) -> tuple[list[Finding], list[Origin], PromptBank]:
    removed = {entry.key for entry in site.entries("removed-prompt")}
    kept = [finding for finding in findings if finding.key not in removed]
    origins: list[Origin] = ["bundle"] * len(kept)
    for key in removed & set(bank.keys):
        bank = bank.without(key)
    for stored in site.entries("prompt"):
        entry = unpack(site.read(stored), bank.rule, artefact=f"site prompt {stored.key}").entries[0]
        code = stored.facts.get("code")
        kept.append(
            Finding(
                key=entry.key,
                display=str(stored.facts.get("display") or entry.key),
                prompt=entry.prompt,
                head=findings[0].head if findings else "findings",
                code=Code(value=code[0], scheme=code[1], meaning=code[2]) if code else None,
            )
        )
        origins.append("site")
        bank = bank.with_entry(entry)
    return kept, origins, bank


def _prompt_notices(bank: PromptBank) -> tuple[Notice, ...]:
    """Say what of the prompts themselves makes a score less than it looks."""
    texts = [entry.cleaned for entry in bank]
    checks: dict[str, Callable[[BankEntry], bool]] = {
        "prompt-empty": lambda entry: not entry.cleaned,
        "prompt-truncated": lambda entry: entry.truncated,
        "prompt-duplicate": lambda entry: bool(entry.cleaned) and texts.count(entry.cleaned) > 1,
    }
    found = []
    for code, applies in checks.items():
        keys = [entry.key for entry in bank if applies(entry)]
        if keys:
            found.append(Notice(code, f"{notice(code).message} Findings: {', '.join(keys)}."))
    return tuple(found)


def _require_key(key: str) -> None:
    if not isinstance(key, str) or not _KEY.match(key):
        raise PromptError(
            "prompt.invalid",
            "this cannot be a finding's key",
            expected="1 to 128 characters, no leading space, no slash, no control character",
            found=repr(key)[:80],
        )


def _without(items: tuple[T, ...], at: int) -> tuple[T, ...]:
    return items[:at] + items[at + 1 :]
