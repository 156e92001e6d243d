"""Engines that a site built: found for this device, or an error that says what differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import msgspec

from promptray.runtime.bundle.manifest import Manifest
from promptray.runtime.bundle.words import quoted
from promptray.runtime.engines.fact_rules import fault_of
from promptray.runtime.engines.facts import Device, EngineSet
from promptray.runtime.engines.plans import pack, plan_name, unpack
from promptray.runtime.engines.settings import Settings
from promptray.runtime.engines.sources import facts_of, sources
from promptray.runtime.errors import BundleError, ScoringError
from promptray.runtime.site import Site, SiteEntry
from promptray.runtime.site_files import corrupt


@dataclass(eq=False)
class StoredEngines:
    """A gated set of engines in a site directory.

    Attributes
    ----------
    facts : EngineSet
    """

    facts: EngineSet
    _site: Site
    _entry: SiteEntry
    _waiting: dict[str, memoryview] = field(default_factory=dict)

    def plan(self, role: str, head: str | None = None) -> memoryview:
        """Return the plan of a graph. The file is read and hashed once; a plan handed out is not kept.

        Raises
        ------
        BundleError
            ``site.corrupt`` where the payload is not what the set's facts say; ``site.changed``.
        """
        name = plan_name(role, head)
        if name not in self._waiting:
            self._waiting = self._read()
        return self._waiting.pop(name)

    def all_plans(self) -> dict[str, memoryview]:
        """Return every plan by its name; none where the library keeps none."""
        return self._read() if self.facts.bytes else {}

    def _read(self) -> dict[str, memoryview]:
        expected = {plan_name(graph.role, graph.head) for graph in self.facts.graphs}
        try:
            plans = unpack(self._site.read(self._entry))
        except ValueError as error:  # msgspec.ValidationError is one
            raise _corrupt(self._site, self._entry, f"its plans cannot be read: {error}") from error
        if plans.keys() != expected or sum(map(len, plans.values())) != self.facts.bytes:
            raise _corrupt(self._site, self._entry, f"its plans are {', '.join(sorted(plans))}")
        return plans


class EngineStore:
    """The sets of engines that a site has of a bundle.

    Parameters
    ----------
    site : Site or None
        None: no site directory is used, so there are none.
    manifest : Manifest
        Of the bundle.
    """

    def __init__(self, site: Site | None, manifest: Manifest) -> None:
        self._site, self._manifest = site, manifest

    @cached_property
    def sets(self) -> tuple[EngineSet, ...]:
        """All of them, in the order they were built.

        Raises
        ------
        BundleError
            ``site.corrupt`` for an entry that is none, or that passed no gate.
        """
        return tuple(self._checked(entry) for entry in self._entries)

    def find(
        self,
        backend: str,
        version: str,
        device: Device,
        *,
        precision: str | None = None,
        settings: Settings | None = None,
        prepares: bool = False,
    ) -> StoredEngines:
        """Return the set for a device: of several the fastest as measured, and the newest of equals.

        Where some of them passed gates on images, another takes their place only when it passed some, too.

        Parameters
        ----------
        backend, version, device
            What is here.
        precision : str, optional
            Asked for; None takes any.
        settings : Settings, optional
            Likewise.
        prepares : bool
            Of several, rather one that prepares images.

        Raises
        ------
        ScoringError
            ``engine.missing``; ``engine.stale`` where the set is of another version, settings or graphs;
            ``engine.foreign`` where it is of another GPU: with what differs in the one that is nearest.
        BundleError
            ``site.corrupt``.
        """
        own = [each for each in self.sets if each.backend == backend]
        differing = {each.key: self._differences(each, version, device, precision, settings) for each in own}
        fitting = [each for each in own if not differing[each.key]]
        if not fitting:
            raise _refusal(backend, device, [differing[each.key] for each in own], precision)
        preparing = [each for each in fitting if each.prepares] if prepares else []
        candidates = preparing or fitting
        on_images = [each for each in candidates if each.gate.images is not None]
        newest_first = reversed(on_images or candidates)
        chosen = min(newest_first, key=lambda each: each.speed.milliseconds if each.speed else float("inf"))
        return self.opened(chosen)

    def opened(self, facts: EngineSet) -> StoredEngines:
        """Return one of :attr:`sets` with its plans."""
        assert self._site is not None  # noqa: S101 - where sets come from
        return StoredEngines(facts, self._site, self._entry(facts.key))

    def differing(self, facts: EngineSet, version: str, device: Device) -> list[str]:
        """Name what keeps a set from being used with this library on this device; nothing where it fits."""
        return [each.field for each in self._differences(facts, version, device, None, None)]

    def require_writable(self) -> None:
        """Refuse to begin long work for a site that cannot keep its result.

        Raises
        ------
        BundleError
            ``site.unwritable``.
        """
        if self._site is None:
            raise ValueError("without a site there is nowhere to store engines")
        self._site.require_writable()

    def add(self, facts: EngineSet, plans: Mapping[str, bytes | memoryview]) -> None:
        """Store a set that passed its gate, in the place of one of the same key.

        Raises
        ------
        BundleError
            ``site.busy``, ``site.unwritable``, ``site.corrupt``.
        """
        if self._site is None:
            raise ValueError("without a site there is nowhere to store engines")
        payload = pack(plans) if plans else b""
        stated = msgspec.to_builtins(facts)
        self._site.add_all("engine", "", [(facts.key, payload, stated)], replace=True)
        self.__dict__.pop("sets", None)

    def remove(self, key: str) -> None:
        """Remove a set, or an entry that is none: its facts and payload are not looked at.

        Raises
        ------
        ScoringError
            ``engine.missing`` where there is none of this key.
        BundleError
            ``site.*``.
        """
        if self._site is None or key not in [entry.key for entry in self._entries]:
            raise ScoringError(
                "engine.missing",
                "the site has no engines of this key",
                artefact=key,
                found=", ".join(entry.key for entry in self._entries) or "no engines",
                cure="`promptray engine BUNDLE --list` shows the keys",
            )
        self._site.remove("engine", "", key)
        self.__dict__.pop("sets", None)

    @property
    def _entries(self) -> tuple[SiteEntry, ...]:
        return self._site.entries("engine") if self._site else ()

    def _entry(self, key: str) -> SiteEntry:
        return next(entry for entry in self._entries if entry.key == key)

    def _checked(self, entry: SiteEntry) -> EngineSet:
        assert self._site is not None  # noqa: S101 - where entries come from
        try:
            facts = msgspec.convert(entry.facts, EngineSet)
        except msgspec.ValidationError as error:
            raise _corrupt(self._site, entry, f"its facts cannot be read: {error}") from error
        if facts.key != entry.key:
            raise _corrupt(self._site, entry, f"its facts are of the key {facts.key}")
        if (entry.payload is None) != (facts.bytes == 0):
            raise _corrupt(self._site, entry, f"its facts say {facts.bytes} bytes of plans")
        if fault := fault_of(facts, self._manifest):
            raise _corrupt(self._site, entry, fault)
        return facts

    def _differences(
        self,
        facts: EngineSet,
        version: str,
        device: Device,
        precision: str | None,
        settings: Settings | None,
    ) -> list[_Difference]:
        own = msgspec.to_builtins(facts.device)
        found = [
            _Difference("engine.foreign", name.replace("_", " "), str(value), str(own[name]))
            for name, value in msgspec.to_builtins(device).items()
        ]
        found.append(_Difference("engine.stale", f"version of {facts.backend}", version, facts.version))
        files = {
            each.file: self._manifest.files[each.file].sha256
            for each in facts.graphs
            if each.file in self._manifest.files
        }
        found += [
            _Difference("engine.stale", each.file, files.get(each.file, "no such graph"), each.sha256)
            for each in facts.graphs
        ]
        wanted = msgspec.to_builtins(settings or facts.settings)
        stated = msgspec.to_builtins(facts.settings)
        found += [_Difference("engine.stale", name, str(wanted[name]), str(stated[name])) for name in wanted]
        if precision is not None:
            chosen = facts_of(sources(self._manifest, facts.backend, version, precision), self._manifest)
            asked = facts.precision if chosen == facts.graphs else precision
            found.append(_Difference("engine.missing", "precision", asked, facts.precision))
        return [each for each in found if each.expected != each.found]


@dataclass(frozen=True)
class _Difference:
    """One fact of a set that is not what is here."""

    code: str
    field: str
    expected: str
    found: str


_SAID = {
    "engine.foreign": "the engines were built for another GPU, and run on no other",
    "engine.stale": "the engines are of another version of the library, or of other graphs or settings",
    "engine.missing": "there are engines for this GPU, but not in the precision asked for",
}


def _refusal(
    backend: str, device: Device, sets: list[list[_Difference]], precision: str | None
) -> ScoringError:
    """Explain why no set fits, by the one that lacks least."""
    asked = f" --precision {precision}" if precision else ""
    cure = f"`promptray engine BUNDLE --backend {backend}{asked}` builds and gates one on this device"
    if not sets:
        return ScoringError(
            "engine.missing",
            "this site has no engines of the bundle for this backend",
            artefact=backend,
            expected=f"engines for {device.title}",
            found="none",
            cure=cure,
        )
    nearest = min(reversed(sets), key=len)
    code = next(code for code in _SAID if code in {each.code for each in nearest})
    return ScoringError(
        code,
        _SAID[code],
        artefact=backend,
        expected="; ".join(f"{each.field} {each.expected}" for each in nearest),
        found="; ".join(f"{each.field} {each.found}" for each in nearest),
        cure=cure,
    )


def _corrupt(site: Site, entry: SiteEntry, message: str) -> BundleError:
    return corrupt(
        f"an entry of engines is damaged: {message}",
        site.folder,
        found=entry.key,
        cure=f"`promptray engine BUNDLE --remove {quoted(entry.key)}`, then build it again",
    )
