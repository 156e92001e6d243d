"""Sessions of ONNX Runtime's CPU provider whose inputs and outputs for one image are bound once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime as ort

from promptray.runtime.backends import Array, failed
from promptray.runtime.backends.finite import require_sound
from promptray.runtime.backends.layout import Layout
from promptray.runtime.backends.onnx_total import TOTAL, total_shape
from promptray.runtime.backends.onnxruntime_graph import FAULTS, OnnxRuntimeBoundGraph
from promptray.runtime.backends.sequential import SequentialChain
from promptray.runtime.bundle.manifest import TensorFacts


def in_place(image: OnnxRuntimeBoundGraph, heads: Sequence[OnnxRuntimeBoundGraph]) -> SequentialChain:
    """Join bound graphs for one image at a time, with all memory that a call needs."""
    first = InPlaceGraph(image, {})
    return SequentialChain(first, [InPlaceHead(head, first.values) for head in heads])


class InPlaceGraph:
    """A bound graph for one image, with memory for all that comes and goes, which every call writes anew.

    Attributes
    ----------
    values : dict of str to OrtValue
        The outputs.
    """

    def __init__(self, bound: OnnxRuntimeBoundGraph, given: Mapping[str, ort.OrtValue]) -> None:
        self._session, self._facts = bound.session, bound.facts
        self._binding = bound.session.io_binding()
        # Bindings of older versions know addresses only: the values live as long as this does.
        self._known = {**given, **bound.resident}
        facts, sizes = bound.facts, _sizes(bound)
        self._inputs = _memory([tensor for tensor in facts.inputs if tensor.name not in self._known], sizes)
        for name, memory in self._inputs.items():
            self._known[name] = ort.OrtValue.ortvalue_from_numpy(memory)
        for tensor in facts.inputs:
            self._binding.bind_ortvalue_input(tensor.name, self._known[tensor.name])
        self._outputs = _memory(facts.outputs, sizes)
        self.values = {name: self._place(name, values) for name, values in self._outputs.items()}
        self._total = np.zeros(total_shape(facts), np.float32) if bound.totalled else None
        if self._total is not None:
            self._place(TOTAL, self._total)

    def _place(self, name: str, memory: Array) -> ort.OrtValue:
        """Let an output be written to memory, which must live as long as this does."""
        value = ort.OrtValue.ortvalue_from_numpy(memory)
        self._binding.bind_ortvalue_output(name, value)
        return value

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run and return every output by name, where the next call will write.

        Raises
        ------
        ScoringError
            ``backend.failed`` with the runtime's first line; ``score.not-finite``.
        """
        for name, memory in self._inputs.items():
            memory[...] = inputs[name]
        try:
            self._session.run_with_iobinding(self._binding)
        except FAULTS as error:
            raise failed(f"the {self._facts.role} graph failed", self._facts, error) from error
        require_sound(self._facts.role, inputs, self._outputs, self._total)
        return self._outputs


class InPlaceHead(InPlaceGraph):
    """A head: its outputs are the answer, and so the caller's own."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run and return a copy of every output by name."""
        return {name: values.copy() for name, values in super().run(inputs).items()}


def _sizes(bound: OnnxRuntimeBoundGraph) -> dict[str, int]:
    """Return how large the dimensions are that have names, for one image."""
    found: dict[str, int] = {}
    for tensor in bound.facts.inputs:
        if tensor.name in bound.resident:
            sides = zip(tensor.dims, bound.resident[tensor.name].shape(), strict=True)
            found |= {dim: side for dim, side in sides if isinstance(dim, str)}
    return found | {str(bound.facts.outputs[0].dims[0]): 1}


def _memory(tensors: Sequence[TensorFacts], sizes: Mapping[str, int]) -> dict[str, Array]:
    """Return memory for tensors, in one piece."""
    layout = Layout(
        {
            tensor.name: (
                tuple(dim if isinstance(dim, int) else sizes[dim] for dim in tensor.dims),
                np.dtype(tensor.dtype),
            )
            for tensor in tensors
        }
    )
    return layout.views(np.zeros(layout.size, np.uint8))
