"""The findings a scorer scores now: the bundle's, the site's, and those of this session."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from promptray.runtime.active_set import ActiveHead, ActiveSet, group_notices, prompt_notices
from promptray.runtime.alternatives import require_alternatives
from promptray.runtime.bank_file import pack, unpack
from promptray.runtime.bound_heads import BoundChain
from promptray.runtime.bundle.manifest import ALTERNATIVES, Code, Finding, Head
from promptray.runtime.errors import PromptError, ScoringError
from promptray.runtime.finding_names import FindingName
from promptray.runtime.fixed_set import fixed_set, require_free
from promptray.runtime.graphs import BundleContent, Graphs
from promptray.runtime.heads import require_head
from promptray.runtime.packs import read_pack
from promptray.runtime.picture import Notice, notice
from promptray.runtime.prompts import PromptBank
from promptray.runtime.site import Site
from promptray.runtime.site_calibration import Calibrations
from promptray.runtime.site_prompts import (
    ActiveFinding,
    Origin,
    checked_finding,
    finding_of,
    forget_finding,
    keep_prompts,
    same_prompts,
    with_site,
)
from promptray.runtime.text_check import check_text


class ActivePrompts:
    """``scorer.prompts``: list, add and remove findings while scoring goes on. Thread-safe.

    Edits are of the bundle's free head; findings of other heads are listed only. A change makes a new state
    beside the old one and swaps it in; a score that is under way finishes with the state it began with.

    Where another process writes to the site, its calibrations count from the next score on: one that was
    found wrong must not be applied any longer. Its prompts wait until the scorer is opened again, so that the
    findings of a batch stay the same; the notice ``site-prompts-changed`` says that they do.

    Examples
    --------
    >>> scorer.prompts.add("rib fracture", "There is rib fracture.")     # doctest: +SKIP
    >>> scorer.prompts.remove("rib fracture")                            # doctest: +SKIP
    """

    def __init__(
        self,
        bundle: BundleContent,
        graphs: Graphs,
        own: Mapping[str, PromptBank],
        site: Site | None,
        closed: threading.Event,
        calibrations: Calibrations,
    ) -> None:
        self._calibrations = calibrations
        self._closed = closed
        self._manifest = bundle.manifest
        self._graphs = graphs
        self._bundle, self._text_checked = bundle, False
        self._site = site
        self._lock = threading.Lock()
        active = {
            name: [
                ActiveFinding(finding, entry, "bundle")
                for finding, entry in zip(bundle.manifest.findings_of(name), bank, strict=True)
            ]
            for name, bank in own.items()
        }
        if site is not None:
            active = with_site(active, bundle.manifest, site)
        heads = [self._activated(head, active[head.name], own[head.name]) for head in bundle.manifest.heads]
        self._state = self._state_of(heads, self._chain_of(heads))

    @property
    def state(self) -> ActiveSet:
        """The current state, with the calibrations that the site has now; take it once per score.

        Raises
        ------
        BundleError
            ``site.corrupt`` where the site was damaged since.
        """
        if self._calibrations.outdated:
            with self._lock:
                self._follow_site()
        return self._state

    def __len__(self) -> int:
        return len(self._state.active)

    def __iter__(self) -> Iterator[Finding]:
        return iter([item.finding for item in self._state.active])

    def of_head(self, head: str) -> list[Finding]:
        """Return the findings of one head that the bundle has, in score order."""
        return [item.finding for item in self._state.of(head).active]

    def __contains__(self, name: object) -> bool:
        return name in self._state.by_name

    def origin(self, name: FindingName) -> Origin:
        """Return where a finding comes from: the bundle, the site directory, or this session."""
        return self._state.find(name).origin

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
        head = self._free_head()
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
            head=head.name,
        )
        self._append(head, [self._encoded(finding, "site" if keep else "session", allow_empty=allow_empty)])
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
            than this head's (those of a scale always do: its head is a fixed set); else as :meth:`add`, and
            nothing is added.
        BundleError
            As :meth:`add`.
        """
        head, pack = self._free_head(), read_pack(name)
        if pack.relation != head.relation:
            raise PromptError(
                "prompt.invalid",
                "the findings of the pack hang together in another way than those of this bundle",
                artefact=name,
                expected=f"a bundle whose findings are {pack.relation}",
                found=head.relation,
                cure=f"build a bundle with `relation: {pack.relation}` and `pack: {name}`",
            )
        findings = [
            checked_finding(each.key, each.prompts, [], display=each.display, code=each.code, head=head.name)
            for each in pack.findings
        ]
        for finding in findings:
            self._require_new(head, finding.key)
        origin: Origin = "site" if keep else "session"
        self._append(head, [self._encoded(finding, origin) for finding in findings])
        return findings

    def _encoded(self, finding: Finding, origin: Origin, *, allow_empty: bool = False) -> ActiveFinding:
        if not self._text_checked:  # a wrong entry would be scored with, and kept
            check_text(self._bundle, self._graphs)
            self._text_checked = True
        encoded = self._graphs.encode(
            finding.key, finding.prompts, finding.negative_prompts, allow_empty=allow_empty
        )
        display = None if finding.display == finding.key else finding.display
        return ActiveFinding(finding, replace(encoded, display=display, code=finding.code), origin)

    def _require_new(self, head: Head, key: str) -> None:
        """Refuse a taken key before a whole pack is encoded."""
        if (head.name, key) in self:
            raise PromptError(
                "prompt.exists",
                "a finding with this key exists already",
                artefact=key,
                cure="remove it first, or choose another key",
            )

    def remove(self, name: FindingName, *, keep: bool = False) -> None:
        """Stop scoring a finding; with `keep`, also for later sessions at this site.

        A key alone means the free head's finding, whatever other heads have that key.

        Raises
        ------
        PromptError
            ``prompt.unknown`` or ``prompt.fixed-set``.
        """
        free = self._free_head()
        with self._lock:
            if keep:
                self._follow_site()
            state = self._state
            own = (free.name, name) if isinstance(name, str) and (free.name, name) in state.by_name else name
            removed = state.find(own)
            head = state.of(removed.finding.head)
            require_free(head.head)
            if keep and removed.origin != "session":
                forget_finding(
                    self._require_site(),
                    self._manifest,
                    removed.finding.key,
                    head=removed.finding.head,
                    revision=state.site_revision,
                )
            left = [item for item in head.active if item is not removed]
            self._state = self._changed(head, left)

    def export(self, keys: Iterable[str] | None = None, *, head: str | None = None) -> bytes:
        """Return cached prompts as bytes that another installation of the same model can import.

        Parameters
        ----------
        keys : iterable of str, optional
            Findings of one head; all of them by default.
        head : str, optional
            Which; by default the free one or, where there is none, the only one.

        Raises
        ------
        PromptError
            ``prompt.unknown``.
        ScoringError
            ``score.head``.
        """
        state, free = self._state, self._manifest.free_head
        of = state.of(free.name if head is None and free else require_head(self._manifest, head).name)
        chosen = of.active if keys is None else [state.find((of.head.name, key)) for key in keys]
        named = [replace(item.entry, display=item.finding.display, code=item.finding.code) for item in chosen]
        return pack(PromptBank(of.head.bank, named))

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
        head = self._free_head()
        origin: Origin = "site" if keep else "session"
        added = [
            ActiveFinding(finding_of(entry, head.name), entry, origin)
            for entry in unpack(data, head.bank, artefact=artefact)
        ]
        self._append(head, added)
        return [item.finding for item in added]

    def _append(self, head: Head, added: Sequence[ActiveFinding]) -> None:
        kept = [item.entry for item in added if item.origin == "site"]
        with self._lock:
            if kept:
                self._follow_site()
            before = self._state.of(head.name)
            new = self._changed(before, [*before.active, *added])
            if head.relation in ALTERNATIVES:
                require_alternatives(new.of(head.name).bank)
            if kept:
                site = self._require_site()
                keep_prompts(site, self._manifest, head, kept, revision=self._state.site_revision or 0)
                new = replace(new, site_revision=site.revision)
            self._state = new

    def _changed(self, before: ActiveHead, active: Sequence[ActiveFinding]) -> ActiveSet:
        """Return the state with other findings of one head."""
        after = self._activated(before.head, active, before.bank)
        heads = [after if each is before else each for each in self._state.heads]
        return self._state_of(heads, self._chain_of(heads))

    def _activated(self, head: Head, active: Sequence[ActiveFinding], known: PromptBank) -> ActiveHead:
        bank = PromptBank(head.bank, (item.entry for item in active), known=known)
        return ActiveHead(head, tuple(active), bank, self._graphs.bind(head, bank))

    def _follow_site(self) -> None:
        """Take over what others wrote to the site: all of it where the prompts are still those scored."""
        if not self._calibrations.outdated:  # another thread was first
            return
        self._calibrations = self._calibrations.read_again()
        latest = self._calibrations.site
        if self._site and latest and same_prompts(self._site, latest):
            self._site = latest
        self._state = self._state_of(self._state.heads, self._state.chain)

    def _chain_of(self, heads: Sequence[ActiveHead]) -> BoundChain | None:
        scored = [each.bound for each in heads if each.active]
        return self._graphs.chain(scored) if scored else None

    def _state_of(self, heads: Sequence[ActiveHead], chain: BoundChain | None) -> ActiveSet:
        waiting = () if self._site is self._calibrations.site else (notice("site-prompts-changed"),)
        revision = None if self._site is None else self._site.revision
        rule = self._manifest.text
        notices: tuple[Notice, ...] = ()
        if rule is not None:  # where there is text, one head is of it
            notices = prompt_notices(next(h.bank for h in heads if h.head.name == rule.head), rule)
        valid, unused = self._calibrations.of([item for each in heads for item in each.active])
        said = (*notices, *group_notices(heads), *waiting, *unused)
        return ActiveSet(tuple(heads), said, revision, valid, chain)

    def _require_site(self) -> Site:
        if self._site is None:
            raise PromptError(
                "prompt.invalid",
                "this scorer was opened without a site directory, so nothing can be kept",
                cure="open it with site=DIR, or without site=None",
            )
        return self._site

    def _free_head(self) -> Head:
        """Return the head that edits are of; refuse where there is none."""
        require_open(self._closed)
        free = self._manifest.free_head
        if free is None:
            raise fixed_set(", ".join(head.name for head in self._manifest.heads))
        return free


def require_open(closed: threading.Event) -> None:
    """Refuse to work for a scorer that was closed.

    Raises
    ------
    ScoringError
        ``score.closed``.
    """
    if closed.is_set():
        raise ScoringError("score.closed", "the scorer is closed", cure="open it again with Scorer.open")


def _as_list(wordings: str | Sequence[str]) -> list[str]:
    return list(wordings) if isinstance(wordings, Sequence) and not isinstance(wordings, str) else [wordings]
