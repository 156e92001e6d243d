"""The libraries for engines that are installed here, as the builder and the runtime use them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from promptray.calibrate.engines.library import Library, Told
from promptray.calibrate.engines.timing_cache import TimingCache
from promptray.export.tensorrt import Profile, build_engine, load_flavour, prepare_profile, profiles_for
from promptray.runtime.backends.choice import OpenedEngines, library_here, open_engines
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.manifest import Graph
from promptray.runtime.engines.device import device_here
from promptray.runtime.engines.facts import EngineBackend
from promptray.runtime.engines.settings import Settings
from promptray.runtime.engines.targets import require_target
from promptray.runtime.graphs import Graphs, own_bank
from promptray.runtime.prepare_graph import PrepareFacts


def open_library(backend: EngineBackend, timing_caches: Path | None) -> Library:
    """Find a library and the GPU that it works for.

    Parameters
    ----------
    backend : {"tensorrt", "tensorrt_rtx", "onnxruntime-cuda"}
    timing_caches : Path or None
        Folder of timing caches; None keeps none.

    Raises
    ------
    BuildError
        ``engine.unavailable``.
    ScoringError
        ``backend.unavailable`` without bindings, driver or GPU; ``engine.target`` for another GPU.
    """
    if backend == "onnxruntime-cuda":
        return OnnxRuntimeCuda()
    return TensorRt(backend, timing_caches)


class _Installed:
    """What both have in common: the runtime's own backend opens the engines that a gate is held on."""

    @contextmanager
    def opened(self, bundle: Bundle, engines: OpenedEngines) -> Iterator[Graphs]:
        """Give the bundle's graphs as these engines run them (see `Library`)."""
        backend = open_engines(engines)
        try:
            yield Graphs(bundle, backend, prompts_per_batch=None, prepare=engines.facts.prepares)
        finally:
            backend.close()


class OnnxRuntimeCuda(_Installed):
    """ONNX Runtime's CUDA provider: it compiles when it opens, so what is stored is only the gate."""

    backend: EngineBackend = "onnxruntime-cuda"
    keeps_plans = False

    def __init__(self) -> None:
        self.version, self.device = library_here(self.backend)

    def compile(
        self,
        bundle: Bundle,
        graph: Graph | PrepareFacts,
        settings: Settings,
        told: Told,
        cancelled: threading.Event,
    ) -> bytes:
        """Never called: it keeps no plans."""
        raise NotImplementedError


class TensorRt(_Installed):
    """TensorRT or TensorRT-RTX, for the GPU that is here."""

    keeps_plans = True

    def __init__(self, backend: EngineBackend, timing_caches: Path | None) -> None:
        self.backend = backend
        self._flavour = load_flavour(backend)
        self.version, self.device = self._flavour.version, device_here()
        require_target(backend, self.device)
        self._cache = TimingCache(timing_caches, backend, self.version, self.device)

    def compile(
        self,
        bundle: Bundle,
        graph: Graph | PrepareFacts,
        settings: Settings,
        told: Told,
        cancelled: threading.Event,
    ) -> bytes:
        """Return the plan of one graph (see `Library`)."""
        built = build_engine(
            bundle.read(graph.file),
            _profiles(bundle, graph, settings),
            settings,
            self._flavour,
            targets=(self.device.compute_capability,) if self._flavour.ahead_of_time else (),
            timing_cache=self._cache.read(),
            progress=told,
            cancelled=cancelled,
        )
        self._cache.keep(built.timing_cache)
        return built.plan


def _profiles(bundle: Bundle, graph: Graph | PrepareFacts, settings: Settings) -> list[Profile]:
    """Return the shapes that an engine of a graph of the bundle is built for."""
    if isinstance(graph, PrepareFacts):
        return [prepare_profile(graph, settings)]
    head = bundle.manifest.head(graph.head or "")
    own = None if head is None else own_bank(bundle, head)
    return profiles_for(graph, bundle.manifest, settings, own=own)
