"""Graphs of ONNX Runtime's CUDA provider: sessions, what is bound to them, and both as a chain.

What lies on the GPU is kept by the backend's :class:`promptray.runtime.backends.cuda.Cuda`, which lets it go
when nothing here refers to it any longer, or when the backend is closed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from promptray.runtime.backends import Array, Outputs, failed
from promptray.runtime.backends.call_sizes import call_sizes, parts_of
from promptray.runtime.backends.declared import PIXELS
from promptray.runtime.backends.device_array import DeviceArray
from promptray.runtime.backends.finite import require_finite
from promptray.runtime.backends.host_input import sides_of
from promptray.runtime.backends.layout import ALIGNMENT
from promptray.runtime.backends.network_input import network_input, part_of
from promptray.runtime.backends.onnxruntime_graph import FAULTS
from promptray.runtime.backends.sequential import Done
from promptray.runtime.bundle.manifest import Graph as GraphFacts
from promptray.runtime.deadline import Deadline

if TYPE_CHECKING:
    from promptray.runtime.backends.onnxruntime_cuda import OnnxRuntimeCuda

#: A run with this number is not recorded; 0 is ONNX Runtime's own (its run option ``gpu_graph_id``).
NOT_RECORDED = -1


class OnnxRuntimeCudaGraph:
    """A compiled session (see :class:`promptray.runtime.backends.Graph`)."""

    def __init__(self, backend: OnnxRuntimeCuda, session: ort.InferenceSession, facts: GraphFacts) -> None:
        self.backend, self.facts = backend, facts
        self.session = backend.cuda.keep(self, session)

    def bind(self, resident: Mapping[str, Array]) -> OnnxRuntimeCudaBoundGraph:
        """Put resident inputs into the provider's memory."""
        taken = {tensor.name for tensor in self.facts.inputs}
        own = {name: array for name, array in resident.items() if name in taken}
        with self.backend.lifetime.use(), self.backend.running:
            self.backend.require_usable()
            self.backend.cuda.collect()
            return OnnxRuntimeCudaBoundGraph(self, own)


class OnnxRuntimeCudaBoundGraph:
    """A session with its resident inputs; it runs as part of a chain."""

    def __init__(self, graph: OnnxRuntimeCudaGraph, resident: Mapping[str, Array]) -> None:
        self.graph, self.sizes = graph, dict[str, int]()
        for tensor in graph.facts.inputs:
            if tensor.name in resident:
                sides = zip(tensor.dims, resident[tensor.name].shape, strict=True)
                self.sizes |= {dim: side for dim, side in sides if isinstance(dim, str)}
        backend = graph.backend
        try:
            values = {name: backend.values(array) for name, array in resident.items()}
        except FAULTS as error:
            raise backend.explained(
                failed("the bank could not be put on the GPU", graph.facts, error)
            ) from error
        self.resident = backend.cuda.keep(self, values)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Refuse: the features would go to the host and back."""
        raise TypeError("a graph of this backend runs as part of a chain: Graphs.chain")


class _Call:
    """One graph with all its tensors in the provider's memory, for one shape.

    It refers to no other object of this module: the backend keeps it until it is given back.
    """

    def __init__(
        self, bound: OnnxRuntimeCudaBoundGraph, inputs: Mapping[str, ort.OrtValue], images: int
    ) -> None:
        facts, backend = bound.graph.facts, bound.graph.backend
        sizes = {**bound.sizes, str(facts.outputs[0].dims[0]): images}
        self.outputs: dict[str, ort.OrtValue] = {}
        self._session = bound.graph.session.value
        self._binding = self._session.io_binding()
        for tensor in facts.inputs:
            value = bound.resident.value.get(tensor.name) or inputs[tensor.name]
            self._binding.bind_ortvalue_input(tensor.name, value)
        for tensor in facts.outputs:
            shape = [dim if isinstance(dim, int) else sizes[dim] for dim in tensor.dims]
            self.outputs[tensor.name] = ort.OrtValue.ortvalue_from_shape_and_type(
                shape, np.dtype(tensor.dtype).type, backend.memory, 0
            )
            self._binding.bind_ortvalue_output(tensor.name, self.outputs[tensor.name])
        self._options = ort.RunOptions()
        self._options.add_run_config_entry("gpu_graph_id", str(next(backend.graph_ids)))

    def run(self) -> None:
        """Run; the provider has done it when this returns."""
        self._session.run_with_iobinding(self._binding, self._options)


class _CallThere:
    """The image graph on pixels of others, where they lie. Never recorded: what is has fixed addresses.

    As a :class:`_Call` it refers to no other object of this module.
    """

    def __init__(self, image: OnnxRuntimeCudaBoundGraph, outputs: Mapping[str, ort.OrtValue]) -> None:
        self._session, self._memory = image.graph.session.value, image.graph.backend.memory
        self._binding = self._session.io_binding()
        for name, value in image.resident.value.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in outputs.items():
            self._binding.bind_ortvalue_output(name, value)
        self._options = ort.RunOptions()
        self._options.add_run_config_entry("gpu_graph_id", str(NOT_RECORDED))

    def run(self, pixels: DeviceArray) -> None:
        """Run; the provider has done it when this returns."""
        self._binding.bind_input(PIXELS, self._memory, 0, np.float32, pixels.shape, pixels.address)
        self._session.run_with_iobinding(self._binding, self._options)


class _Tensors:
    """Pixels and calls of a program."""

    def __init__(
        self,
        image: OnnxRuntimeCudaBoundGraph,
        heads: Sequence[OnnxRuntimeCudaBoundGraph],
        shape: tuple[int, ...],
    ) -> None:
        self.pixels = image.graph.backend.values(np.zeros(shape, np.float32))
        self.first = _Call(image, {PIXELS: self.pixels}, shape[0])
        self.there = _CallThere(image, self.first.outputs)
        self.heads = [_Call(head, self.first.outputs, shape[0]) for head in heads]


class _Program:
    """The image graph and bound heads for B images."""

    def __init__(
        self,
        image: OnnxRuntimeCudaBoundGraph,
        heads: Sequence[OnnxRuntimeCudaBoundGraph],
        shape: tuple[int, ...],
    ) -> None:
        self._backend = image.graph.backend
        self._tensors = self._backend.cuda.keep(self, _Tensors(image, heads, shape))
        self.run(np.zeros(shape, np.float32))

    def run(self, pixels: Array | DeviceArray) -> list[dict[str, Array]]:
        tensors: _Tensors = self._tensors.value
        if not isinstance(pixels, DeviceArray):
            tensors.pixels.update_inplace(np.ascontiguousarray(pixels))
            tensors.first.run()
        elif pixels.address % ALIGNMENT:
            self._backend.looks.copy(tensors.pixels.data_ptr(), pixels)
            tensors.first.run()
        else:
            tensors.there.run(pixels)
        for call in tensors.heads:
            call.run()
        # A head may make a number of what is none.
        of_others = pixels if isinstance(pixels, DeviceArray) else None
        self._backend.looks.require_finite(of_others, tensors.first.outputs)
        # On the processor's own provider numpy() is a view of memory that the next call writes to.
        return [
            {name: np.array(value.numpy()) for name, value in call.outputs.items()} for call in tensors.heads
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
        self._sides = sides_of(image.graph.facts)
        images = backend.engines.settings.images
        self._sizes = call_sizes([images.tuned], images.most)
        self._programs: dict[int, _Program] = {}
        with backend.lifetime.use(), backend.running:
            backend.require_usable()
            backend.cuda.collect()
            self._run(np.zeros((1, *self._sides), np.float32))

    def submit(self, pixels: Any, limit: Deadline) -> Done:
        """Score pixels, in calls of the sizes that there are; the answer is there when this returns."""
        start = time.perf_counter()
        backend = self._backend
        with backend.lifetime.use():
            backend.require_usable()
            incoming = network_input(pixels, self._sides, backend.cuda, backend.looks.arrival)
            images = incoming.shape[0]
            self._wait(limit)
            try:
                backend.require_usable()
                limit.check("before the graphs")
                if isinstance(incoming, DeviceArray):
                    backend.looks.wait_for(incoming, limit)
                parts = [
                    self._run(part_of(incoming, first, last - first))
                    for first, last in parts_of(images, self._sizes)
                ]
                backend.cuda.collect()
            finally:
                backend.running.release()
        heads = [
            {name: np.concatenate([part[head][name] for part in parts]) for name in outputs}
            for head, outputs in enumerate(parts[0])
        ]
        for each in heads:
            require_finite(each, "head")
        return Done(Outputs(heads, {"infer": 1000 * (time.perf_counter() - start)}), limit, images)

    def _wait(self, limit: Deadline) -> None:
        if limit.bounded:
            limit.wait(lambda: self._backend.running.acquire(blocking=False), "behind other calls")
        else:
            self._backend.running.acquire()

    def _run(self, pixels: Array | DeviceArray) -> list[dict[str, Array]]:
        images = pixels.shape[0]
        try:
            if images not in self._programs:
                self._programs[images] = _Program(self._image, self._heads, pixels.shape)
            return self._programs[images].run(pixels)
        except FAULTS as error:
            self._programs.pop(images, None)  # what failed half-way is made anew
            raise self._backend.explained(failed("a graph failed", self._image.graph.facts, error)) from error
