"""ONNX Runtime's CUDA provider: the road for a GPU without TensorRT, in true float32 (TF32 off).

The graphs are compiled when the bundle is opened; its set of engines is the record that they passed their
gate on this GPU with this version. The bank and the features stay on the device (IO binding); the work of
each shape is recorded as a CUDA graph.

Thread rules. Every method may be called from any thread; calls run one after the other, since a session with
CUDA graphs runs one at a time. ONNX Runtime frees a recorded graph with its session only: where prompts
change all day long, open the scorer anew now and then, or without CUDA graphs.
"""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import onnxruntime as ort

from promptray.runtime.backends import (
    Array,
    GpuOptions,
    Outputs,
    no_prepare,
    require_finite,
    require_on_host,
)
from promptray.runtime.backends.choice import OpenedEngines
from promptray.runtime.backends.cuda import Cuda
from promptray.runtime.backends.declared import DeclaredGraph
from promptray.runtime.backends.lifetime import Lifetime
from promptray.runtime.backends.onnxruntime import (
    FAULTS,
    failed,
    make_session,
    refuse_mixed_wheels,
)
from promptray.runtime.backends.onnxruntime_trial import PROVIDER, fault, find_libraries, missing_library
from promptray.runtime.backends.sequential import Done
from promptray.runtime.bundle.manifest import Graph as GraphFacts
from promptray.runtime.cores import host_threads
from promptray.runtime.deadline import Deadline
from promptray.runtime.engines.device import device_here
from promptray.runtime.engines.facts import EngineFacts
from promptray.runtime.errors import ScoringError

_PIXELS = "pixels"
_PATIENCE = 10.0


def version_here(name: str) -> str:
    """Return the version of ONNX Runtime on this machine, where its CUDA provider works.

    Raises
    ------
    ScoringError
        ``backend.unavailable``, ``backend.mixed-wheels``.
    """
    refuse_mixed_wheels()
    find_libraries()
    if PROVIDER not in ort.get_available_providers():
        raise _unavailable(name, missing_library())
    device_here()  # a driver or GPU that is missing is said in its own words
    if found := fault():
        raise _unavailable(name, found)
    return str(ort.__version__)


def open_backend(
    *, engines: OpenedEngines, options: GpuOptions, threads: int | None = None
) -> OnnxRuntimeCuda:
    """Make this backend."""
    version_here("onnxruntime-cuda")
    return OnnxRuntimeCuda(engines, options, threads=threads)


class OnnxRuntimeCuda:
    """Runs graphs on one provider with all tensors in its memory.

    Parameters
    ----------
    engines : OpenedEngines
    options : GpuOptions
        `streams` is of no effect.
    threads : int, optional
        Of the host.
    provider, memory : str
        Others than CUDA's are for tests, which run this code on a machine without a GPU.
    """

    name = "onnxruntime-cuda"

    def __init__(
        self,
        engines: OpenedEngines,
        options: GpuOptions,
        *,
        threads: int | None = None,
        provider: str = PROVIDER,
        memory: str = "cuda",
    ) -> None:
        self._opened, self.threads = engines, host_threads(threads)
        self.version, self.provider, self.memory = str(ort.__version__), provider, memory
        self.cuda = Cuda()
        self.device = self.cuda.device.title
        self.cuda_graphs = options.cuda_graphs and provider == PROVIDER
        self.running = threading.Lock()
        self.lifetime = Lifetime(self.cuda.current)
        self.graph_ids = itertools.count(1)

    @property
    def engines(self) -> EngineFacts:
        """The set whose gate this is."""
        return self._opened.facts

    def load(self, model: Callable[[], bytes], facts: GraphFacts) -> OnnxRuntimeCudaGraph:
        """Compile an ONNX model for the provider.

        Raises
        ------
        ScoringError
            ``backend.unavailable`` where ONNX Runtime would run it on the processor instead;
            ``backend.capture``, ``backend.failed``, ``backend.out-of-memory``.
        """
        with self.lifetime.use():
            self.require_usable()
            try:
                session = make_session(
                    model(), facts, self.provider, self._provider_options(), threads=self.threads
                )
            except ScoringError as error:
                raise self.explained(error) from error
        if session.get_providers()[0] != self.provider:
            raise _unavailable(self.name, missing_library())
        return OnnxRuntimeCudaGraph(self, session, facts)

    def _provider_options(self) -> dict[str, str]:
        if self.provider != PROVIDER:
            return {}
        return {
            "device_id": "0",
            "use_tf32": "0",
            "enable_cuda_graph": str(int(self.cuda_graphs)),
            # By default it measures, and may choose another algorithm, of other bits, at every opening.
            "cudnn_conv_algo_search": "DEFAULT",
        }

    def prepare_with(self, facts: DeclaredGraph) -> NoReturn:
        """Refuse: ONNX Runtime has no engine that prepares images."""
        raise no_prepare(self.name, "ONNX Runtime, which leaves it to the CPU")

    def chain(
        self, image: OnnxRuntimeCudaBoundGraph, heads: Sequence[OnnxRuntimeCudaBoundGraph]
    ) -> OnnxRuntimeCudaChain:
        """Join bound graphs; memory and CUDA graphs for one image are made now."""
        return OnnxRuntimeCudaChain(self, image, heads)

    def values(self, array: Array) -> ort.OrtValue:
        """Put an array into the provider's memory."""
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self.memory, 0)

    def explained(self, error: ScoringError) -> ScoringError:
        """Return a fault of ONNX Runtime as what CUDA says it is."""
        number = re.search(r"CUDA failure (\d+)", error.message)
        memory = re.search(r"out of memory|Failed to allocate memory", error.message)
        if "graph capture" in error.message or "CUDA graph" in error.message:
            return ScoringError(
                "backend.capture", "ONNX Runtime cannot record the graph as a CUDA graph",
                artefact=error.artefact, found=error.message,
                cure="say --no-cuda-graphs (in Python: gpu=GpuOptions(cuda_graphs=False))",
            )  # fmt: skip
        if number or memory:
            return self.cuda.explained("ONNX Runtime", int(number[1]) if number else 2, error.message)
        return error

    def require_usable(self) -> None:
        """Refuse to go on with a device that was lost."""
        self.cuda.require_usable()

    def close(self) -> None:
        """Let calls under way come to their end. Memory goes with the last reference to the sessions."""
        if self.lifetime.end(_PATIENCE):
            self.cuda.close()


class OnnxRuntimeCudaGraph:
    """A compiled session (see :class:`promptray.runtime.backends.Graph`)."""

    def __init__(self, backend: OnnxRuntimeCuda, session: ort.InferenceSession, facts: GraphFacts) -> None:
        self._backend, self._session, self._facts = backend, session, facts

    def bind(self, resident: Mapping[str, Array]) -> OnnxRuntimeCudaBoundGraph:
        """Put resident inputs into the provider's memory."""
        taken = {tensor.name for tensor in self._facts.inputs}
        own = {name: array for name, array in resident.items() if name in taken}
        with self._backend.lifetime.use():
            self._backend.require_usable()
            return OnnxRuntimeCudaBoundGraph(self._backend, self._session, self._facts, own)


class OnnxRuntimeCudaBoundGraph:
    """A session with its resident inputs; it runs as part of a chain."""

    def __init__(
        self,
        backend: OnnxRuntimeCuda,
        session: ort.InferenceSession,
        facts: GraphFacts,
        resident: Mapping[str, Array],
    ) -> None:
        self.backend, self.session, self.facts = backend, session, facts
        self.sizes: dict[str, int] = {}
        for tensor in facts.inputs:
            if tensor.name in resident:
                sides = zip(tensor.dims, resident[tensor.name].shape, strict=True)
                self.sizes |= {dim: side for dim, side in sides if isinstance(dim, str)}
        try:
            self.resident = {name: backend.values(array) for name, array in resident.items()}
        except FAULTS as error:
            raise backend.explained(failed("the bank could not be put on the GPU", facts, error)) from error

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Refuse: the features would go to the host and back."""
        raise TypeError("a graph of this backend runs as part of a chain: Graphs.chain")


class _Call:
    """One graph with all its tensors in the provider's memory, for one shape."""

    def __init__(
        self, bound: OnnxRuntimeCudaBoundGraph, inputs: Mapping[str, ort.OrtValue], images: int
    ) -> None:
        self._bound, backend = bound, bound.backend
        sizes = {**bound.sizes, str(bound.facts.outputs[0].dims[0]): images}
        self.outputs: dict[str, ort.OrtValue] = {}
        self._binding = bound.session.io_binding()
        for tensor in bound.facts.inputs:
            value = bound.resident.get(tensor.name) or inputs[tensor.name]
            self._binding.bind_ortvalue_input(tensor.name, value)
        for tensor in bound.facts.outputs:
            shape = [dim if isinstance(dim, int) else sizes[dim] for dim in tensor.dims]
            self.outputs[tensor.name] = ort.OrtValue.ortvalue_from_shape_and_type(
                shape, np.dtype(tensor.dtype).type, backend.memory, 0
            )
            self._binding.bind_ortvalue_output(tensor.name, self.outputs[tensor.name])
        self._options = ort.RunOptions()
        if backend.cuda_graphs:
            self._options.add_run_config_entry("gpu_graph_id", str(next(backend.graph_ids)))

    def run(self) -> None:
        """Run; the provider has done it when this returns."""
        self._bound.session.run_with_iobinding(self._binding, self._options)


class _Program:
    """The image graph and bound heads for B images."""

    def __init__(
        self,
        image: OnnxRuntimeCudaBoundGraph,
        heads: Sequence[OnnxRuntimeCudaBoundGraph],
        shape: tuple[int, ...],
    ) -> None:
        self._pixels = image.backend.values(np.zeros(shape, np.float32))
        self._first = _Call(image, {_PIXELS: self._pixels}, shape[0])
        self._heads = [_Call(head, self._first.outputs, shape[0]) for head in heads]
        self._calls = [self._first, *self._heads]
        self.run(np.zeros(shape, np.float32))

    def run(self, pixels: Array) -> list[dict[str, Array]]:
        self._pixels.update_inplace(np.ascontiguousarray(pixels))
        for call in self._calls:
            call.run()
        # A head may make a number of what is none; features are looked at on the host.
        require_finite({name: value.numpy() for name, value in self._first.outputs.items()}, "image")
        # On the processor's own provider numpy() is a view of memory that the next call writes to.
        return [
            {name: np.array(value.numpy()) for name, value in call.outputs.items()} for call in self._heads
        ]


class OnnxRuntimeCudaChain:
    """A chain of graphs on the provider (see :class:`promptray.runtime.backends.Chain`)."""

    def __init__(
        self,
        backend: OnnxRuntimeCuda,
        image: OnnxRuntimeCudaBoundGraph,
        heads: Sequence[OnnxRuntimeCudaBoundGraph],
    ) -> None:
        self._backend, self._image, self._heads = backend, image, tuple(heads)
        facts = next(each for each in image.facts.inputs if each.name == _PIXELS)
        self._sides = tuple(int(side) for side in facts.dims[1:])
        self._most = backend.engines.settings.images.most
        self._programs: dict[int, _Program] = {}
        with backend.lifetime.use(), backend.running:
            backend.require_usable()
            self._run(np.zeros((1, *self._sides), np.float32))

    def submit(self, pixels: Any, limit: Deadline) -> Done:
        """Score pixels, so many at once as the settings say; the answer is there when this returns."""
        require_on_host(pixels)
        if pixels.dtype != np.float32 or pixels.shape[1:] != self._sides or not len(pixels):
            raise ScoringError(
                "score.input",
                "network input of another shape or type than the model takes",
                expected=f"float32 (images, {', '.join(map(str, self._sides))})",
                found=f"{pixels.dtype} {list(pixels.shape)}",
                cure="make it with scorer.prepare",
            )
        require_finite({_PIXELS: pixels}, "image")
        start = time.perf_counter()
        with self._backend.lifetime.use():
            self._wait(limit)
            try:
                self._backend.require_usable()
                limit.check("before the graphs")
                parts = [
                    self._run(pixels[first : first + self._most])
                    for first in range(0, len(pixels), self._most)
                ]
            finally:
                self._backend.running.release()
        heads = [
            {name: np.concatenate([part[head][name] for part in parts]) for name in outputs}
            for head, outputs in enumerate(parts[0])
        ]
        return Done(Outputs(heads, {"infer": 1000 * (time.perf_counter() - start)}), limit, len(pixels))

    def _wait(self, limit: Deadline) -> None:
        if limit.bounded:
            limit.wait(lambda: self._backend.running.acquire(blocking=False), "behind other calls")
        else:
            self._backend.running.acquire()

    def _run(self, pixels: Array) -> list[dict[str, Array]]:
        images = len(pixels)
        try:
            if images not in self._programs:
                self._programs[images] = _Program(self._image, self._heads, pixels.shape)
            return self._programs[images].run(pixels)
        except FAULTS as error:
            self._programs.pop(images, None)  # what failed half-way is made anew
            raise self._backend.explained(failed("a graph failed", self._image.facts, error)) from error


def _unavailable(name: str, found: str) -> ScoringError:
    return ScoringError(
        "backend.unavailable",
        "ONNX Runtime cannot use the GPU",
        artefact=name,
        found=found,
        cure="in an environment of its own: pip uninstall onnxruntime, then pip install onnxruntime-gpu and "
        "the CUDA and cuDNN packages that its release names",
    )
