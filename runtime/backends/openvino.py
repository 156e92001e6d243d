"""OpenVINO on the CPU, in true float32.

The library is imported when a backend is made. Every method may be called from any thread: an infer
request belongs to one call at a time, and a call that finds none free makes another.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence, Set
from types import ModuleType
from typing import Any, NoReturn

import numpy as np

from promptray.runtime.backends import OPENVINO, Array, failed, no_prepare
from promptray.runtime.backends.declared import PIXELS, DeclaredGraph, require_declared
from promptray.runtime.backends.finite import require_sound
from promptray.runtime.backends.host_settings import GATED, HostSettings
from promptray.runtime.backends.one_image import OneImageChain
from promptray.runtime.backends.onnx_files import require_self_contained
from promptray.runtime.backends.onnx_total import TOTAL, can_total, declared_total, with_total
from promptray.runtime.backends.openvino_library import NAME, load_library
from promptray.runtime.backends.sequential import SequentialChain
from promptray.runtime.bundle.manifest import Graph as GraphFacts
from promptray.runtime.cores import host_threads
from promptray.runtime.errors import ScoringError

_PRECISION = "INFERENCE_PRECISION_HINT"
_FLOAT32 = "f32"


def version_here() -> str:
    """Return the version of the installed OpenVINO."""
    return importlib.metadata.version(NAME)


def state_here() -> str:
    """Return the version with the arithmetics that it has for this processor; float32 is what is used."""
    able = sorted(load_library().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    return f"{version_here()}, CPU with {', '.join(able)}; float32 is what is used"


class OpenVino:
    """Compiles graphs for OpenVINO's CPU plugin.

    By default the plugin computes float32 graphs in bfloat16 where the processor can, and Linear layers of
    compressed weights with ranges taken at run time. Both are off here, and a graph that was compiled
    otherwise all the same is refused.

    Parameters
    ----------
    threads : int, optional
        Threads of one call; by default, and at most, the cores this process may use.
    settings : HostSettings, optional
        `arena` and `optimisation` are of no effect.
    """

    name = OPENVINO
    device = "CPU"
    engines = None

    def __init__(self, *, threads: int | None = None, settings: HostSettings = GATED) -> None:
        # It takes no more than there are cores, whatever is asked for.
        self.threads = min(host_threads(threads), host_threads(None))
        self.settings = settings
        self._library = load_library()
        self.version, self._core = version_here(), self._library.Core()
        self._properties = {
            _PRECISION: _FLOAT32,
            "EXECUTION_MODE_HINT": "ACCURACY",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
            "PERFORMANCE_HINT": settings.hint.upper(),
            "INFERENCE_NUM_THREADS": self.threads,
            # Threads of two scorers, or of two processes, would be pinned to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        if settings.hint == "latency":
            self._properties["NUM_STREAMS"] = 1  # all threads work on one call

    def load(self, model: Callable[[], bytes], facts: GraphFacts) -> OpenVinoGraph:
        """Compile an ONNX model held in memory: the bytes that were hashed are the bytes that run.

        Raises
        ------
        BundleError
            ``bundle.unsafe-path`` for a model that keeps weights in other files, which nobody hashed.
        ScoringError
            ``backend.failed``, also where OpenVINO would compute it in less than float32.
        """
        content = model()
        require_self_contained(content, facts.file)
        totalled = can_total(facts)
        if totalled:
            content = with_total(content, facts)
        try:
            network = self._core.read_model(content)
            if facts.role == "image":
                # For any number of images it would work out every shape anew in every call.
                network.reshape({tensor.name: [1, *tensor.dims[1:]] for tensor in facts.inputs})
            compiled = self._core.compile_model(network, "CPU", self._properties)
        except _faults(self._library) as error:
            raise failed(f"the {facts.role} graph could not be loaded", facts, error) from error
        _require_float32(compiled, facts)
        more = declared_total(facts) if totalled else {}
        inputs = _tensors(compiled.inputs, {tensor.name for tensor in facts.inputs})
        outputs = _tensors(compiled.outputs, {tensor.name for tensor in facts.outputs} | more.keys())
        require_declared(facts, inputs, outputs, more)
        return OpenVinoGraph(self._library, compiled, facts, totalled=totalled)

    def prepare_with(self, facts: DeclaredGraph) -> NoReturn:
        """Refuse: OpenVINO has no engine that prepares images."""
        raise no_prepare(self.name, "OpenVINO, which leaves it to the CPU")

    def chain(self, image: Any, heads: Sequence[Any]) -> OneImageChain:
        """Join bound graphs of this backend, which run one after the other."""
        several = SequentialChain(image, heads)
        return OneImageChain(image.facts, several, lambda: SequentialChain(image.in_place(), heads))

    def require_usable(self) -> None:
        """Do nothing: a processor is not lost."""

    def close(self) -> None:
        """Do nothing: compiled graphs go when nothing refers to them."""


class OpenVinoGraph:
    """A compiled graph.

    Parameters
    ----------
    library : module
    compiled : CompiledModel
    facts : GraphFacts
    totalled : bool
        Whether it has the output :data:`promptray.runtime.backends.onnx_total.TOTAL`.
    """

    def __init__(self, library: ModuleType, compiled: Any, facts: GraphFacts, *, totalled: bool) -> None:
        self._library, self._compiled, self._facts = library, compiled, facts
        self._totalled = totalled

    def bind(self, resident: Mapping[str, Array]) -> OpenVinoBoundGraph:
        """Wrap the resident arrays once, so that a run copies nothing of them."""
        taken = {tensor.name for tensor in self._facts.inputs}
        own = {name: np.ascontiguousarray(array) for name, array in resident.items() if name in taken}
        return OpenVinoBoundGraph(self._library, self._compiled, self._facts, own, totalled=self._totalled)


class OpenVinoBoundGraph:
    """A compiled graph with its resident inputs.

    Attributes
    ----------
    facts : GraphFacts
    """

    def __init__(
        self,
        library: ModuleType,
        compiled: Any,
        facts: GraphFacts,
        resident: dict[str, Array],
        *,
        totalled: bool,
    ) -> None:
        self._library, self._compiled, self.facts, self._totalled = library, compiled, facts, totalled
        # OpenVINO keeps addresses only: the arrays live as long as this does.
        self._resident = resident
        self._taken = {tensor.name for tensor in facts.inputs} - resident.keys()
        self._outputs = [tensor.name for tensor in facts.outputs]
        self._free: list[Any] = []

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run and return every output by name, as arrays of the caller's own.

        Several images go one after the other: one has work for all cores.

        Raises
        ------
        ScoringError
            ``backend.failed`` with OpenVINO's first line, and where an input is missing: a request keeps the
            address of the array that it was given last; ``score.not-finite``.
        """
        pixels = inputs.get(PIXELS)
        if pixels is not None and len(pixels) > 1:
            parts = [self.run({PIXELS: pixels[place : place + 1]}) for place in range(len(pixels))]
            return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}
        try:
            request = self._free.pop()
        except IndexError:
            request = self.request()
        outputs = self.infer(request, inputs)
        # The next call of the request writes to the same memory.
        found = {name: np.array(values) for name, values in outputs.items()}
        self._free.append(request)  # what failed half-way is not used again
        return found

    def in_place(self) -> _InPlace:
        """Return this graph for one call at a time, whose outputs are not copied."""
        return _InPlace(self)

    def infer(self, request: Any, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a request of this graph and return its outputs where they lie (see :meth:`run`)."""
        try:
            given = {name: np.ascontiguousarray(inputs[name]) for name in self._taken}
            for name, array in given.items():
                request.set_tensor(name, self._library.Tensor(array, shared_memory=True))
            request.infer(share_outputs=True)
            found = {name: request.get_tensor(name).data for name in self._outputs}
            total = request.get_tensor(TOTAL).data if self._totalled else None
        except _faults(self._library) as error:
            raise failed(f"the {self.facts.role} graph failed", self.facts, error) from error
        require_sound(self.facts.role, inputs, found, total)
        return found

    def request(self) -> Any:
        """Make a request with the resident inputs."""
        try:
            request = self._compiled.create_infer_request()
            for name, array in self._resident.items():
                request.set_tensor(name, self._library.Tensor(array, shared_memory=True))
        except _faults(self._library) as error:
            raise failed(f"the {self.facts.role} graph failed", self.facts, error) from error
        return request


class _InPlace:
    """A bound graph with one request; the next call writes its outputs anew."""

    def __init__(self, bound: OpenVinoBoundGraph) -> None:
        self._bound, self._request = bound, bound.request()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run and return every output by name (see :meth:`OpenVinoBoundGraph.run`)."""
        return self._bound.infer(self._request, inputs)


def _faults(library: ModuleType) -> tuple[type[Exception], ...]:
    """Return what a call raises: an input that is not given, or what OpenVINO raises itself.

    Its front end has classes of its own, which share no base below Exception.
    """
    names = ("General", "Initialization", "NotImplemented", "OpConversion", "OpValidation")
    own = (getattr(library.frontend, f"{name}Failure") for name in names)
    return (KeyError, RuntimeError, ValueError, TypeError, *own)


def _tensors(ports: Sequence[Any], known: Set[str]) -> dict[str, tuple[str, int]]:
    """Describe ports by the names that are known; a port may have several, and a name several ports."""
    found: dict[str, tuple[str, int]] = {}
    for port in ports:
        names = set(port.names)
        kind = port.element_type.to_dtype().name
        for name in names & known or sorted(names)[:1]:
            title = f"{name}, again" if name in found else name
            found[title] = (kind, port.partial_shape.rank.get_length())
    return found


def _require_float32(compiled: Any, facts: GraphFacts) -> None:
    """Refuse a graph that was compiled for another arithmetic than was asked for."""
    found = compiled.get_property(_PRECISION).get_type_name()
    if found != _FLOAT32:
        raise ScoringError(
            "backend.failed",
            "OpenVINO would compute the graph in less than float32",
            artefact=facts.file,
            expected=_FLOAT32,
            found=found,
            cure="use the backend onnxruntime-cpu, and report it with what `promptray doctor` says",
        )
