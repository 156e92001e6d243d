"""The findings a scorer scores now: the bundle's, the site's, and those of this session."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from promptray.runtime.alternatives import require_alternatives
from promptray.runtime.bundle.manifest import ALTERNATIVES, Code, Finding, TextRule
from promptray.runtime.errors import PromptError, ScoringError
from promptray.runtime.fixed_set import require_free
from promptray.runtime.graphs import BoundHead, BundleContent, Graphs
from promptray.runtime.packs import read_pack
from promptray.runtime.picture import Notice, notice
from promptray.runtime.prompts import BankEntry, PromptBank, pack, unpack
from promptray.runtime.site import Site
from promptray.runtime.site_prompts import (
    ActiveFinding,
    Origin,
    checked_finding,
    finding_of,
    forget_finding,
    keep_prompts,
    with_site,
)
from promptray.runtime.wording import Wording

# A tokenizer of words takes punctuation mark by mark.
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, eq=False)
class ActiveSet:
    """One consistent state: findings, their bank bound to the head. Replaced whole, never changed.

    Attributes
    ----------
    active : tuple of ActiveFinding
        In score order.
    bank : PromptBank
        Their cached prompts.
    head : BoundHead
        The head with just these prompts.
    notices : tuple of Notice
        What to know about the prompts.
    site_revision : int or None
        The site's revision these findings come from; None without a site.
    """

    active: tuple[ActiveFinding, ...]
    bank: PromptBank
    head: BoundHead
    notices: tuple[Notice, ...]
    site_revision: int | None

    def find(self, key: str) -> ActiveFinding:
        """Return a finding by key.

        Raises
        ------
        PromptError
            ``prompt.unknown``.
        """
        found = next((item for item in self.active if item.finding.key == key), None)
        if found is None:
            raise PromptError(
                "prompt.unknown",
                "no finding has this key",
                artefact=str(key)[:200],
                expected=f"one of {', '.join(item.finding.key for item in self.active) or '(none)'}",
            )
        return found


class ActivePrompts:
    """``scorer.prompts``: list, add and remove findings while scoring goes on. Thread-safe.

    A change makes a new state beside the old one and swaps it in; a score that is under way finishes with
    the state it began with.

    Examples
    --------
    >>> scorer.prompts.add("rib fracture", "There is rib fracture.")     # doctest: +SKIP
    >>> scorer.prompts.remove("rib fracture")                            # doctest: +SKIP
    """

    def __init__(
        self,
        bundle: BundleContent,
        graphs: Graphs,
        own: PromptBank,
        site: Site | None,
        closed: threading.Event,
    ) -> None:
        self._closed = closed
        self._manifest = bundle.manifest
        self._graphs = graphs
        self._rule = own.rule
        self._site = site
        self._lock = threading.Lock()
        pairs = zip(bundle.manifest.findings, own, strict=True)
        active = [ActiveFinding(finding, entry, "bundle") for finding, entry in pairs]
        if site is not None:
            active = with_site(active, own.rule, bundle.manifest.head, site)
        self._state = self._activate(active, own)

    @property
    def state(self) -> ActiveSet:
        """The current state; take it once per score."""
        return self._state

    def __len__(self) -> int:
        return len(self._state.active)

    def __iter__(self) -> Iterator[Finding]:
        return iter([item.finding for item in self._state.active])

    def __contains__(self, key: object) -> bool:
        return any(item.finding.key == key for item in self._state.active)

    def origin(self, key: str) -> Origin:
        """Return where a finding comes from: the bundle, the site directory, or this session."""
        return self._state.find(key).origin

    def add(
        self,
        key: str,
        prompt: str | Sequence[str] | None = None,
        *,
        negative_prompt: str | Sequence[str] = (),
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
        prompt : str or sequence of str, optional
            The wording, or several where the model scores an ensemble; by default the bundle's templates
            filled with the key.
        negative_prompt : str or sequence of str
            What the finding is asked against, in a bundle whose findings are pairs.
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
        self._require_editable()
        text = self._manifest.text
        templates = text.templates if text else ["{}"]
        filled = [template.replace("{}", str(key)) for template in templates]
        # The finding is checked before its prompts are encoded, which takes a while.
        finding = checked_finding(
            key,
            filled if prompt is None else _as_list(prompt),
            _as_list(negative_prompt),
            display=display,
            code=code,
            head=self._manifest.head.name,
        )
        self._append([self._encoded(finding, "site" if keep else "session", allow_empty=allow_empty)])
        return finding

    def add_pack(self, name: str, *, keep: bool = False) -> list[Finding]:
        """Encode a shipped prompt pack, with its published wordings, and score all of it from now on.

        Parameters
        ----------
        name : str
            A name of :func:`promptray.runtime.packs.pack_names`.
        keep : bool
            Store the findings in the site directory, all or none.

        Raises
        ------
        PromptError
            ``prompt.unknown-pack``; ``prompt.invalid`` when the pack's findings hang together in another way
            than this head's, or are a scale and there are other findings; else as :meth:`add`, and nothing is
            added.
        BundleError
            As :meth:`add`.
        """
        self._require_editable()
        head, pack = self._manifest.head, read_pack(name)
        if pack.relation != head.relation:
            raise PromptError(
                "prompt.invalid",
                "the findings of the pack hang together in another way than those of this bundle",
                artefact=name,
                expected=f"a bundle whose findings are {pack.relation}",
                found=head.relation,
                cure=f"build a bundle with `relation: {pack.relation}` and `pack: {name}`",
            )
        if pack.relation == "ordinal" and len(self):
            raise PromptError(
                "prompt.invalid",
                "the pack is a scale, and behind other findings its steps would be those of a longer one",
                artefact=name,
                expected="a bundle that scores nothing else",
                found=", ".join(finding.key for finding in self)[:200],
                cure=f"build a bundle with `pack: {name}`",
            )
        findings = [
            checked_finding(each.key, each.prompts, [], display=each.display, code=each.code, head=head.name)
            for each in pack.findings
        ]
        for finding in findings:
            self._require_new(finding.key)
        origin: Origin = "site" if keep else "session"
        self._append([self._encoded(finding, origin) for finding in findings])
        return findings

    def _encoded(self, finding: Finding, origin: Origin, *, allow_empty: bool = False) -> ActiveFinding:
        encoded = self._graphs.encode(
            finding.key, finding.prompts, finding.negative_prompts, allow_empty=allow_empty
        )
        display = None if finding.display == finding.key else finding.display
        return ActiveFinding(finding, replace(encoded, display=display, code=finding.code), origin)

    def _require_new(self, key: str) -> None:
        """Refuse a taken key before a whole pack is encoded."""
        if key in self:
            raise PromptError(
                "prompt.exists",
                "a finding with this key exists already",
                artefact=key,
                cure="remove it first, or choose another key",
            )

    def remove(self, key: str, *, keep: bool = False) -> None:
        """Stop scoring a finding; with `keep`, also for later sessions at this site.

        Raises
        ------
        PromptError
            ``prompt.unknown`` or ``prompt.fixed-set``.
        """
        self._require_editable()
        with self._lock:
            removed = self._state.find(key)
            if keep and removed.origin != "session":
                forget_finding(self._require_site(), self._manifest, key)
            left = [item for item in self._state.active if item is not removed]
            self._state = self._activate(left, self._state.bank)

    def export(self, keys: Iterable[str] | None = None) -> bytes:
        """Return cached prompts as bytes that another installation of the same model can import.

        Raises
        ------
        PromptError
            ``prompt.unknown``.
        """
        state = self._state
        chosen = state.active if keys is None else [state.find(key) for key in keys]
        named = [replace(item.entry, display=item.finding.display, code=item.finding.code) for item in chosen]
        return pack(PromptBank(self._rule, named))

    def import_(
        self, data: bytes, *, keep: bool = False, artefact: str = "imported prompts"
    ) -> list[Finding]:
        """Add prompts that were encoded elsewhere with the same model; needs no text graph.

        Raises
        ------
        BundleError
            ``bundle.foreign-bank`` when they were made with another model, rule or precision;
            ``bundle.format`` when a byte was changed.
        PromptError
            ``prompt.exists`` when a key is taken; then nothing is added.
        """
        self._require_editable()
        origin: Origin = "site" if keep else "session"
        head = self._manifest.head.name
        added = [
            ActiveFinding(finding_of(entry, head), entry, origin)
            for entry in unpack(data, self._rule, artefact=artefact)
        ]
        self._append(added)
        return [item.finding for item in added]

    def _append(self, added: Sequence[ActiveFinding]) -> None:
        with self._lock:
            new = self._activate([*self._state.active, *added], self._state.bank)
            if self._manifest.head.relation in ALTERNATIVES:
                require_alternatives(new.bank)
            kept = [item.entry for item in added if item.origin == "site"]
            if kept:
                site = self._require_site()
                keep_prompts(site, self._manifest, self._rule, kept, revision=self._state.site_revision or 0)
                new = replace(new, site_revision=site.revision)
            self._state = new

    def _activate(self, active: Sequence[ActiveFinding], known: PromptBank) -> ActiveSet:
        bank = PromptBank(self._rule, (item.entry for item in active), known=known)
        revision = None if self._site is None else self._site.revision
        notices = _prompt_notices(bank, self._manifest.text)
        return ActiveSet(tuple(active), bank, self._graphs.bind(bank), notices, revision)

    def _require_site(self) -> Site:
        if self._site is None:
            raise PromptError(
                "prompt.invalid",
                "this scorer was opened without a site directory, so nothing can be kept",
                cure="open it with site=DIR, or without site=None",
            )
        return self._site

    def _require_editable(self) -> None:
        require_open(self._closed)
        require_free(self._manifest.head)


def require_open(closed: threading.Event) -> None:
    """Refuse to work for a scorer that was closed.

    Raises
    ------
    ScoringError
        ``score.closed``.
    """
    if closed.is_set():
        raise ScoringError("score.closed", "the scorer is closed", cure="open it again with Scorer.open")


def _prompt_notices(bank: PromptBank, text: TextRule | None) -> tuple[Notice, ...]:
    """Say what of the prompts themselves makes a score less than it looks."""
    ordered = text is None or text.order == "read"
    seen = {entry.key: _seen(entry, ordered=ordered) for entry in bank}
    texts = Counter(seen.values())
    checks: dict[str, Callable[[BankEntry], bool]] = {
        "prompt-empty": lambda entry: not all(each.cleaned for each in entry.wordings),
        "prompt-truncated": lambda entry: any(each.truncated for each in entry.wordings),
        "prompt-duplicate": lambda entry: any(seen[entry.key][0]) and texts[seen[entry.key]] > 1,
    }
    found = []
    for code, applies in checks.items():
        keys = [entry.key for entry in bank if applies(entry)]
        if keys:
            found.append(Notice(code, f"{notice(code).message} Findings: {', '.join(keys)}."))
    return tuple(found)


def _seen(entry: BankEntry, *, ordered: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return all that the model sees of a finding: two alike score alike."""
    own = sorted(_read(each, ordered=ordered) for each in entry.prompts)
    return tuple(own), tuple(sorted(_read(each, ordered=ordered) for each in entry.negative_prompts))


def _read(wording: Wording, *, ordered: bool) -> str:
    """Return a wording as the model reads it. What is cut off the end of a long one depends on its order."""
    if ordered or wording.truncated:
        return wording.cleaned
    return " ".join(sorted(_WORD.findall(wording.cleaned)))


def _as_list(wordings: str | Sequence[str]) -> list[str]:
    return list(wordings) if isinstance(wordings, Sequence) and not isinstance(wordings, str) else [wordings]
