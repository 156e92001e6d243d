"""Which backend scores a bundle here: the one asked for, or the best there is an answer for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from promptray.runtime.backends import (
    HOST,
    NAMES,
    OF_ENGINES,
    OF_THE_HOST,
    OPENVINO,
    Backend,
    GpuOptions,
    load_backend,
    no_prepare,
)
from promptray.runtime.backends.host_settings import GATED, HostSettings
from promptray.runtime.bundle.manifest import Manifest
from promptray.runtime.engines.device import device_here
from promptray.runtime.engines.facts import Device, EngineFacts, EngineSet
from promptray.runtime.engines.targets import require_target
from promptray.runtime.errors import ScoringError
from promptray.runtime.machine_class import consumers_here
from promptray.runtime.tuning import Tuning


class OpenedEngines(Protocol):
    """A set of engines with its plans, each read and hash-checked when it is asked for."""

    @property
    def facts(self) -> EngineFacts:
        """What they are: of a set that passed its gate, an ``EngineSet``."""
        ...

    def plan(self, role: str, head: str | None = None) -> bytes | memoryview:
        """Return the plan of a graph."""
        ...


class EngineSource(Protocol):
    """Where sets of engines that passed their gate are looked for: ``runtime.engines.store.EngineStore``."""

    @property
    def sets(self) -> Sequence[EngineSet]:
        """All sets of the bundle."""
        ...

    def find(self, backend: str, version: str, device: Device, *, prepares: bool = False) -> OpenedEngines:
        """Return the set for a device, rather one that prepares images, or raise ``engine.*``."""
        ...


#: Backend of engines -> its module, which offers ``version_here(name)`` and
#: ``open_backend(engines=..., options=..., threads=...)``.
_MODULES: dict[str, str] = {
    "tensorrt": "promptray.runtime.backends.tensorrt",
    "tensorrt_rtx": "promptray.runtime.backends.tensorrt",
    "onnxruntime-cuda": "promptray.runtime.backends.onnxruntime_cuda",
}
#: What keeps "auto" from engines that are there; anything else is an error.
_NOT_HERE = ("backend.unavailable", "engine.target", "engine.missing", "engine.stale", "engine.foreign")
_ASKED = "asked for by the caller"


def engine_version(name: str) -> str:
    """Return the version of the library behind a backend of engines.

    Raises
    ------
    ScoringError
        ``backend.unavailable`` where it cannot be loaded, saying why.
    """
    version: str = importlib.import_module(_MODULES[name]).version_here(name)
    return version


def library_here(name: str) -> tuple[str, Device]:
    """Return the version of the library behind a backend of engines, and the GPU here, which it is for.

    Raises
    ------
    ScoringError
        ``backend.unavailable`` without library or GPU; ``engine.target`` where they do not go together.
    """
    version, device = engine_version(name), device_here()
    require_target(name, device)
    return version, device


def open_engines(
    engines: OpenedEngines, *, options: GpuOptions | None = None, threads: int | None = None
) -> Backend:
    """Make the backend of a set of engines. Whoever calls it with a set without a gate has to hold one.

    Nothing is recorded as a CUDA graph where the set's facts say so, whatever the options are.

    Raises
    ------
    ScoringError
        ``backend.unavailable``, ``backend.failed``, ``backend.out-of-memory``.
    """
    module = importlib.import_module(_MODULES[engines.facts.backend])
    options = options or GpuOptions()
    options = replace(options, cuda_graphs=options.cuda_graphs and engines.facts.cuda_graphs)
    backend: Backend = module.open_backend(engines=engines, options=options, threads=threads)
    return backend


def choose_backend(
    name: str,
    *,
    threads: int | None,
    manifest: Manifest,
    engines: EngineSource | None = None,
    options: GpuOptions | None = None,
    prepares: bool = False,
    host: HostSettings | None = None,
    tuning: Tuning | None = None,
    reproducible: bool = False,
) -> tuple[Backend, str]:
    """Open a backend by name, or choose one for ``"auto"``; never another than the one asked for.

    Parameters
    ----------
    name : str
        One of :data:`NAMES`, or ``"auto"``.
    threads : int or None
        Threads of one call on the host; None lets the backend use every core of this process.
    manifest : Manifest
        Of the bundle: the host's backend can be used where all its graphs were gated on it and, if they are
        changed ones, on this class of machine.
    engines : EngineSource, optional
        Where gated engines are; None: there are none.
    options : GpuOptions, optional
        Of a backend of a GPU.
    prepares : bool
        Of several sets of engines, rather one that prepares images; ``"auto"`` takes no backend of the host.
    host : HostSettings, optional
        Of a backend of the processor that is asked for by name.
    tuning : Tuning, optional
        What was measured on this machine: ``"auto"`` follows it where it still holds, and otherwise says why
        it does not.
    reproducible : bool
        Scores must not change with what is measured later: "auto" follows no measurement.

    Returns
    -------
    (Backend, str)
        The backend and why it was chosen.

    Raises
    ------
    ScoringError
        ``backend.unavailable`` for an unknown name, a library that is not there, or a backend that the bundle
        was not gated on on this class of machine; ``engine.*`` without engines for this device, or none
        that prepares images.
    """
    if host is not None and name not in OF_THE_HOST:
        raise ValueError(f"host settings are for {' and '.join(OF_THE_HOST)}, asked for by name")
    if name in OF_ENGINES:
        return open_engines(_found(name, engines, prepares), options=options, threads=threads), _ASKED
    if name in OF_THE_HOST:
        if options is not None:
            raise ValueError(f"gpu options are of no use to {name}")
        return _host(name, manifest, threads, host or GATED), _ASKED
    if name != "auto":
        raise ScoringError(
            "backend.unavailable",
            "no such backend",
            artefact=name,
            expected=f"auto or one of {', '.join(NAMES)}",
            cure="run `promptray doctor` to see what this machine can run",
        )
    there = {each.backend for each in engines.sets} if engines else set()
    passed_over = []
    for each in OF_ENGINES:
        if each in there:
            try:
                found = _found(each, engines, prepares)
            except ScoringError as error:
                if error.code not in _NOT_HERE:
                    raise
                passed_over.append(f"the engines for {each} are not for this machine ({error.code})")
                continue
            reason = "auto: the site has engines that passed their gate on this device"
            return open_engines(found, options=options, threads=threads), "; ".join([reason, *passed_over])
    if prepares and manifest.engines and manifest.engines.prepare:
        raise no_prepare(HOST, "; ".join(passed_over) or "no engines in the site")
    if tuning is not None:
        different = _not_followed(tuning, manifest, threads)
        if reproducible:
            different = "measured again they may choose another way, and other bits"
        if different is None:
            way = tuning.chosen
            reasons = [f"auto: {tuning.reason}", *passed_over]
            return _host(way.backend, manifest, way.threads, way.settings), "; ".join(reasons)
        passed_over.append(f"the times measured on {tuning.date} are not followed: {different}")
    reason = f"auto: the first of the backends this bundle was gated on ({HOST})"
    return _host(HOST, manifest, threads, GATED), "; ".join([reason, *passed_over])


def _not_followed(tuning: Tuning, manifest: Manifest, threads: int | None) -> str | None:
    """Say what keeps "auto" from following what was measured; None where nothing does."""
    way = tuning.chosen
    if not is_gated(manifest, way.backend):
        return f"the bundle's graphs were not gated on {way.backend}"
    if threads not in (None, way.threads):
        return f"they are of {way.threads} threads, and the caller asked for {threads}"
    return tuning.stale


def _found(name: str, engines: EngineSource | None, prepares: bool) -> OpenedEngines:
    """Return the engines for the GPU and the library that are here."""
    version, device = library_here(name)
    if engines is None:
        raise ScoringError(
            "engine.missing",
            "engines lie in the site directory, and none is used",
            artefact=name,
            cure="open the scorer with a site",
        )
    return engines.find(name, version, device, prepares=prepares)


def _host(name: str, manifest: Manifest, threads: int | None, settings: HostSettings) -> Backend:
    if not is_gated(manifest, name):
        raise _ungated(name, manifest)
    if settings.optimisation != GATED.optimisation and manifest.gated_for(consumers_here(name)) is not None:
        raise ScoringError(
            "backend.unavailable",
            "changed graphs run only as far rewritten as they were when they were gated",
            artefact=name,
            expected=f"optimisation {GATED.optimisation}",
            found=settings.optimisation,
            cure="leave the setting out",
        )
    return load_backend(name, threads=threads, settings=settings)


def is_gated(manifest: Manifest, backend: str) -> bool:
    """Tell whether every graph has a variant that was gated on a backend on this class of machine.

    Text is encoded on the host's first backend, whatever scores.
    """
    needed = {(graph.role, graph.head) for graph in manifest.graphs}
    return all(
        manifest.graph_for(role, consumers_here(HOST if role == "text" else backend), head)
        for role, head in needed
    )


def _ungated(name: str, manifest: Manifest) -> ScoringError:
    """Say why a bundle cannot be used, and on which machines it can."""
    pairs = sorted({each for graph in manifest.graphs for each in graph.consumers if "@" in each})
    of_class = [pair for pair in pairs if pair.partition("@")[0] == name]
    if not of_class:
        gated = sorted({each for graph in manifest.graphs for each in graph.consumers})
        cure = "use a backend that `promptray inspect` lists for every graph, or build the bundle again"
        if name == OPENVINO:
            cure += f" with `backends: [{HOST}, {OPENVINO}]` in its recipe, which gates it on both"
        return ScoringError(
            "backend.unavailable",
            "the bundle's graphs were not gated on this backend",
            artefact=name,
            expected=f"graphs for {name}",
            found=f"graphs for {', '.join(gated)}",
            cure=cure,
        )
    return ScoringError(
        "backend.unavailable",
        "the bundle's changed graphs were gated on another class of machine, which computes them otherwise",
        artefact=name,
        expected=" or ".join(of_class),
        found=f"this machine is {consumers_here(name)[0].partition('@')[2]}",
        cure="run `promptray build` with the same recipe on such a machine, which gates it there; or without "
        "its section 'quantise': fp32 graphs run on every machine",
    )
