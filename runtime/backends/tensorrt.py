"""TensorRT and TensorRT-RTX: engines that passed their gate on this GPU.

Thread rules. Every method may be called from any thread. An engine is loaded once; each call has a stream and
execution contexts of its own for as long as it is under way (``GpuOptions.streams`` of each shape), so calls
run side by side and never share a context. Loading, binding and making contexts happen one at a time.

The bank lies on the device. A change of prompts makes a new chain beside the old one; the old bank is given
back when no call uses it any more, at the end of a call or at the next change.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from promptray.runtime.backends import Array, GpuOptions, no_prepare
from promptray.runtime.backends.choice import OpenedEngines
from promptray.runtime.backends.cuda import Cuda
from promptray.runtime.backends.declared import DeclaredGraph
from promptray.runtime.backends.engine_chain import EngineChain
from promptray.runtime.backends.engine_prepare import PreparingEngine
from promptray.runtime.backends.engine_program import BoundEngine
from promptray.runtime.backends.finite_check import FiniteCheck
from promptray.runtime.backends.host_settings import GATED
from promptray.runtime.backends.lifetime import Lifetime
from promptray.runtime.backends.postponed import when_allowed
from promptray.runtime.backends.tensorrt_engine import Engine, Library, load_library
from promptray.runtime.bundle.manifest import Graph as GraphFacts
from promptray.runtime.cores import host_threads
from promptray.runtime.deadline import Deadline
from promptray.runtime.engines.facts import EngineFacts
from promptray.runtime.errors import ScoringError

#: Most seconds that closing waits for work under way; after that its memory is left to the process's end.
_PATIENCE = 10.0


def version_here(name: str) -> str:
    """Return the version of TensorRT or TensorRT-RTX on this machine.

    Raises
    ------
    ScoringError
        ``backend.unavailable``.
    """
    return str(load_library(name).__version__)


def open_backend(*, engines: OpenedEngines, options: GpuOptions, threads: int | None = None) -> TensorRt:
    """Make the backend of a set of engines."""
    return TensorRt(engines, options, threads=threads)


class TensorRt:
    """Runs a set of engines.

    Parameters
    ----------
    engines : OpenedEngines
        For this GPU and this version of the library; its plans are read when their graph is loaded.
    options : GpuOptions
    threads : int, optional
        Of one call on the host, which encodes text.
    """

    settings = GATED

    def __init__(self, engines: OpenedEngines, options: GpuOptions, *, threads: int | None = None) -> None:
        self._opened, self._options = engines, options
        self.name, self.threads = engines.facts.backend, host_threads(threads)
        self._cuda = Cuda()
        with self._cuda.current():
            self._library = Library(self.name, self._cuda)
        self.version, self.device = self._library.version, self._cuda.device.title
        self._building = threading.RLock()
        self._lifetime = Lifetime(self._cuda.current)
        self._aloft: dict[Any, None] = {}
        self._preparing: PreparingEngine | None = None
        give_back = partial(_give_back, self._lifetime, self._aloft, self._cuda)
        self._dropped = weakref.finalize(self, when_allowed, give_back)
        self._dropped.atexit = False  # the driver does it, and may be gone by then
        try:
            with self._cuda.current():
                self._finite = FiniteCheck(self._cuda)
        except BaseException:
            self.close()
            raise

    @property
    def engines(self) -> EngineFacts:
        """The set that runs."""
        return self._opened.facts

    def load(self, model: Callable[[], bytes], facts: GraphFacts) -> TensorRtGraph:
        """Load the graph's engine of the set; the model itself is not read."""
        with self._lifetime.use(), self._building:
            self._cuda.require_usable()
            return TensorRtGraph(self, Engine(self._library, self._plan(facts), facts))

    def prepare_with(self, facts: DeclaredGraph) -> PreparingEngine:
        """Load the engine that prepares images; chains made from now on take images to prepare, too."""
        if not self.engines.prepares:
            raise no_prepare(self.name, f"the set {self.engines.key}, which has none")
        with self._lifetime.use(), self._building:
            self._cuda.require_usable()
            self._preparing = PreparingEngine(self._cuda, Engine(self._library, self._plan(facts), facts))
            return self._preparing

    def _plan(self, facts: DeclaredGraph) -> bytes | memoryview:
        return self._opened.plan(facts.role, facts.head)

    def bind(self, engine: Engine, resident: Mapping[str, Array]) -> BoundEngine:
        """Put resident inputs on the device."""
        with self._lifetime.use(), self._building:
            self._cuda.require_usable()
            self._tidy()
            return BoundEngine(engine, resident)

    def chain(self, image: BoundEngine, heads: Sequence[BoundEngine]) -> EngineChain:
        """Join bound engines; contexts, memory and CUDA graphs for one image are made now."""
        with self._lifetime.use(), self._building:
            self._cuda.require_usable()
            self._tidy()
            return EngineChain(
                self._cuda,
                self._finite,
                self._lifetime,
                self._building,
                self._aloft,
                image,
                heads,
                self._options,
                self._preparing.engine if self._preparing else None,
            )

    def _tidy(self) -> None:
        """Give back what nobody uses; calls that nobody asked after are brought home for it."""
        for flight in list(self._aloft):
            if flight.done():
                flight.land(Deadline(None, None))
        self._cuda.collect()

    def require_usable(self) -> None:
        """Refuse to go on with a device that was lost."""
        self._cuda.require_usable()

    def close(self) -> None:
        """Let work under way come to its end and give everything back. Answers that wait stay readable.

        The same happens to a backend that nobody holds any more.
        """
        self._dropped.detach()
        _give_back(self._lifetime, self._aloft, self._cuda)


def _give_back(lifetime: Lifetime, aloft: dict[Any, None], cuda: Cuda) -> None:
    ended = lifetime.end(_PATIENCE)
    try:
        for flight in list(aloft):
            flight.land(Deadline(_PATIENCE, None))
    except ScoringError:  # the device hangs: nothing may be freed that it still works on
        return
    if ended:
        cuda.close()


class TensorRtGraph:
    """An engine of the set (see :class:`promptray.runtime.backends.Graph`)."""

    def __init__(self, backend: TensorRt, engine: Engine) -> None:
        self._backend, self._engine = backend, engine

    def bind(self, resident: Mapping[str, Array]) -> BoundEngine:
        """Put resident inputs on the device."""
        return self._backend.bind(self._engine, resident)
