"""From a bundle to a gated set of engines in its site directory, on the device that will run it.

Nothing is stored before every gate was passed, and then as one entry at once: whatever ends the work before,
a refusal, Ctrl-C or a power cut, leaves the site as it was.
"""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from promptray.calibrate.engines.golden_gate import hold_golden
from promptray.calibrate.engines.images_gate import hold_images, require_passed
from promptray.calibrate.engines.library import Candidate, Library
from promptray.calibrate.engines.ready_made import ready_made
from promptray.calibrate.engines.speed import Measure, measured, one_image, time_alone, time_beside
from promptray.calibrate.gates.report import GateReport
from promptray.calibrate.image_set import ImageSet, Progress
from promptray.runtime.backends.choice import OpenedEngines
from promptray.runtime.bound_heads import BoundHead
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.engines import EngineSource
from promptray.runtime.bundle.manifest import Graph
from promptray.runtime.engines.facts import (
    EngineFacts,
    EngineGate,
    EngineSet,
    EngineSpeed,
    SourceGraph,
    engine_key,
)
from promptray.runtime.engines.plans import plan_name
from promptray.runtime.engines.settings import Settings
from promptray.runtime.engines.sources import (
    as_graph,
    baseline,
    facts_of,
    precision_of,
    prepare_source,
    sources,
)
from promptray.runtime.engines.store import EngineStore, StoredEngines
from promptray.runtime.errors import BuildError
from promptray.runtime.graphs import Graphs, own_bank
from promptray.runtime.prepare_graph import PrepareFacts


@dataclass(frozen=True)
class Asked:
    """What a set of engines is built as.

    Attributes
    ----------
    precision : str or None
        None: the narrowest that the bundle has graphs in.
    settings : Settings
    images : ImageSet or None
        To hold the gates of ``docs/gates.md`` on, beside the golden pictures.
    rebuild : bool
        Compile again what the site has, or what travels in the bundle.
    prepare : bool
        Compile the graph that prepares images, too, where the bundle has one that the library takes.
    cuda_graphs : bool
        Record calls as a CUDA graph, but for a set that the site has gated without. False: gate it without.
    """

    precision: str | None = None
    settings: Settings = field(default_factory=Settings)
    images: ImageSet | None = None
    rebuild: bool = False
    prepare: bool = True
    cuda_graphs: bool = True

    def recorded(self, there: EngineSet | None) -> bool:
        """Whether calls of a set are recorded; `there` is what the site has of it."""
        return self.cuda_graphs and (there is None or there.cuda_graphs)


#: Called with the reports of the gates on images, by head.
Reported = Callable[[Mapping[str, GateReport]], None]


@dataclass(frozen=True)
class Outcome:
    """What became of it.

    Attributes
    ----------
    facts : EngineSet
        As the site holds it.
    plans : {"compiled", "of the bundle", "of the bundle, what prepares images compiled", "of the site"}
        Where the plans come from.
    gated : bool
        False: the site had the set, and no images were given to gate it on again.
    reports : mapping of str to GateReport
        By head; empty without images.
    """

    facts: EngineSet
    plans: str
    gated: bool
    reports: Mapping[str, GateReport]


def build_set(
    bundle: Bundle,
    store: EngineStore,
    library: Library,
    asked: Asked,
    *,
    progress: Progress,
    reported: Reported = lambda reports: None,
    cancelled: threading.Event | None = None,
    measure: Measure = measured,
) -> Outcome:
    """Compile a bundle's graphs, hold the gates on this device, and store what passed.

    Parameters
    ----------
    bundle : Bundle
    store : EngineStore
        Of the bundle's site.
    library : Library
    asked : Asked
    progress : callable
        Called with (stage, message, fraction).
    reported : callable, optional
        Called with the reports of the gates on images, passed or not.
    cancelled : threading.Event, optional
        Set it in another thread to stop a build.
    measure : callable, optional
        Times calls.

    Raises
    ------
    BuildError
        ``gate.failed``, ``gate.inconclusive``, ``gate.images``; ``engine.gate`` where a gate on images would
        be lost; ``engine.*``.
    ScoringError
        ``engine.source``; ``engine.missing`` where quantised engines have no fp16 set to be compared with;
        ``backend.*``.
    BundleError
        ``bundle.*``, ``site.*``.
    """
    manifest = bundle.manifest
    chosen = sources(manifest, library.backend, library.version, asked.precision)
    prepare = prepare_source(manifest, library.backend, library.version, library.device)
    graphs = facts_of(chosen, manifest) + ([prepare] if prepare and asked.prepare else [])
    key = engine_key(library.backend, library.version, library.device, graphs, asked.settings)
    there = next((each for each in store.sets if each.key == key), None)
    if there is not None and asked.images is None:
        if not asked.rebuild and there.cuda_graphs == asked.recorded(there):
            return Outcome(there, "of the site", False, {})
        _require_no_gate_lost(there)
    store.require_writable()
    baseline = _baseline(bundle, store, library, graphs)
    made = _Made(bundle, library, chosen, graphs, asked, progress, cancelled or threading.Event())
    candidate, origin = made.candidate(store, there)
    progress("open", "loading the engines", 0.0)
    with _opened(bundle, library, candidate) as opened:
        gate, reports = _gates(bundle, opened, candidate.facts, asked.images, progress, reported)
        progress("speed", "timing one image", 0.0)
        speed = _speed(bundle, library, opened, candidate.facts, baseline, measure)
    progress("store", "writing the site directory", 0.0)
    facts = _gated(candidate.facts, gate, speed)
    store.add(facts, candidate.plans)
    return Outcome(facts, origin, True, reports)


def _require_no_gate_lost(there: EngineSet) -> None:
    """Refuse to put a set that passed on golden pictures alone in the place of one that passed on images."""
    if there.gate.images is not None:
        raise BuildError(
            "engine.gate",
            "the site's engines passed gates on images, which new ones would have to pass, too",
            artefact=there.key,
            expected=there.gate.title,
            found="no images",
            cure="name them: --images DIR [--labels CSV]; or give that gate up: first "
            f"`promptray engine BUNDLE --remove {there.key}`",
        )


_Opened = tuple[Graphs, Mapping[str, BoundHead]]


def _gates(
    bundle: Bundle,
    opened: _Opened,
    facts: EngineFacts,
    images: ImageSet | None,
    progress: Progress,
    reported: Reported,
) -> tuple[EngineGate, Mapping[str, GateReport]]:
    """Hold the gate on golden pictures and, where there are images, the gates on them."""
    progress("golden", f"scoring {len(bundle.manifest.golden.images)} golden pictures", 0.0)
    gate = hold_golden(bundle, *opened, facts)
    if images is None:
        return gate, {}
    reports = hold_images(bundle, *opened, facts, images, progress)
    reported(reports)
    return msgspec.structs.replace(gate, images=require_passed(reports, images)), reports


def _speed(
    bundle: Bundle,
    library: Library,
    opened: _Opened,
    facts: EngineFacts,
    baseline: _Baseline | None,
    measure: Measure,
) -> EngineSpeed:
    """Time one image, in the same rounds as the set that a quantised one must be faster than."""
    call = one_image(bundle, *opened)
    if baseline is None:
        return time_alone(call, measure)
    with _opened(bundle, library, baseline.engines) as wider:
        return time_beside(facts, call, baseline.precision, one_image(bundle, *wider), measure)


@contextmanager
def _opened(bundle: Bundle, library: Library, engines: OpenedEngines) -> Iterator[_Opened]:
    """Give the graphs that engines run, and all heads with the bundle's own banks."""
    with library.opened(bundle, engines) as graphs:
        banks = {head.name: own_bank(bundle, head) for head in bundle.manifest.heads}
        yield graphs, graphs.bind_all(banks)


@dataclass(frozen=True)
class _Baseline:
    """The set that a quantised one must be faster than."""

    precision: str
    engines: StoredEngines


@dataclass(frozen=True)
class _Made:
    """The plans of a set: those that are there, or compiled ones."""

    bundle: Bundle
    library: Library
    sources: Sequence[EngineSource]
    graphs: Sequence[SourceGraph]
    asked: Asked
    progress: Progress
    cancelled: threading.Event

    def candidate(self, store: EngineStore, there: EngineSet | None) -> tuple[Candidate, str]:
        """Return the set with where its plans come from: those of the site before those of the bundle."""
        library, settings = self.library, self.asked.settings
        recorded = self.asked.recorded(there)
        if there is not None and not self.asked.rebuild:
            facts = msgspec.structs.replace(there, cuda_graphs=recorded)
            return Candidate(facts, store.opened(there).all_plans()), "of the site"
        if not library.keeps_plans:
            return Candidate(self._facts({}, 0.0, recorded), {}), "compiled"
        start, plans = time.monotonic(), None
        if not self.asked.rebuild:
            plans = ready_made(
                self.bundle, library.backend, library.version, library.device, self.sources, settings
            )
        ready = plans or {}
        missing = [graph for graph in self._to_compile() if plan_name(graph.role, graph.head) not in ready]
        compiled = {
            plan_name(graph.role, graph.head): self._compiled(graph, number, len(missing))
            for number, graph in enumerate(missing)
        }
        seconds = time.monotonic() - start if missing else 0.0
        made = {**ready, **compiled}
        origin = "compiled" if plans is None else "of the bundle"
        if plans is not None and missing:
            origin += ", what prepares images compiled"
        return Candidate(self._facts(made, seconds, recorded), made), origin

    def _to_compile(self) -> list[Graph | PrepareFacts]:
        """Return every graph of the set as it is compiled. No bundle has the one that prepares ready made."""
        manifest = self.bundle.manifest
        facts: list[Graph | PrepareFacts] = [as_graph(each, manifest) for each in self.sources]
        prepare = [each.file for each in self.graphs if each.role == "prepare"]
        return facts + [PrepareFacts.of(file, manifest.preprocessing) for file in prepare]

    def _compiled(self, graph: Graph | PrepareFacts, number: int, of: int) -> bytes:
        def told(phase: str, fraction: float) -> None:
            self.progress("compile", f"{graph.title}: {phase}", (number + fraction) / of)

        told("reading the graph", 0.0)
        return self.library.compile(self.bundle, graph, self.asked.settings, told, self.cancelled)

    def _facts(self, plans: Mapping[str, bytes], seconds: float, recorded: bool) -> EngineFacts:
        return EngineFacts(
            backend=self.library.backend,
            version=self.library.version,
            device=self.library.device,
            precision=precision_of(self.sources),
            graphs=list(self.graphs),
            settings=self.asked.settings,
            build_seconds=seconds,
            bytes=sum(map(len, plans.values())),
            cuda_graphs=recorded,
        )


def _baseline(
    bundle: Bundle, store: EngineStore, library: Library, graphs: Sequence[SourceGraph]
) -> _Baseline | None:
    """Find what a quantised set is compared with: before a long build, for it must be there."""
    wider = baseline(bundle.manifest, library.backend, library.version, graphs)
    if wider is None:
        return None
    found = store.find(library.backend, library.version, library.device, precision=wider)
    return _Baseline(wider, found)


def _gated(facts: EngineFacts, gate: EngineGate, speed: EngineSpeed) -> EngineSet:
    stated = {name: getattr(facts, name) for name in EngineFacts.__struct_fields__}
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return EngineSet(**stated, gate=gate, speed=speed, built=now)
