"""Sessions of ONNX Runtime's CPU provider whose inputs and outputs for one image are bound once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from promptray.runtime.backends import Array, failed
from promptray.runtime.backends.finite import require_sound
from promptray.runtime.backends.layout import Layout
from promptray.runtime.backends.onnx_total import TOTAL, total_shape
from promptray.runtime.backends.onnxruntime_graph import FAULTS, OnnxRuntimeBoundGraph
from promptray.runtime.backends.sequential import SequentialChain


def in_place(image: OnnxRuntimeBoundGraph, heads: Sequence[OnnxRuntimeBoundGraph]) -> SequentialChain:
    """Join bound graphs for one image at a time, with all memory that a call needs."""
    first = InPlaceGraph(image, {})
    return SequentialChain(first, [InPlaceHead(head, first.values) for head in heads])


class InPlaceGraph:
    """A bound graph for one image, with memory for its outputs, which every call writes anew.

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
        self._missing = []
        for tensor in bound.facts.inputs:
            if tensor.name in self._known:
                self._binding.bind_ortvalue_input(tensor.name, self._known[tensor.name])
            else:
                self._missing.append(tensor.name)
        layout = Layout(_outputs(bound))
        self._outputs = layout.views(np.zeros(layout.size, np.uint8))
        self.values = {name: self._place(name, values) for name, values in self._outputs.items()}
        self._total = np.zeros(total_shape(bound.facts), np.float32) if bound.totalled else None
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
        try:
            for name in self._missing:
                self._binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(inputs[name]))
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


def _outputs(bound: OnnxRuntimeBoundGraph) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return the shapes and types of the outputs for one image."""
    sizes: dict[str, int] = {}
    for tensor in bound.facts.inputs:
        if tensor.name in bound.resident:
            sides = zip(tensor.dims, bound.resident[tensor.name].shape(), strict=True)
            sizes |= {dim: side for dim, side in sides if isinstance(dim, str)}
    sizes[str(bound.facts.outputs[0].dims[0])] = 1
    return {
        tensor.name: (
            tuple(dim if isinstance(dim, int) else sizes[dim] for dim in tensor.dims),
            np.dtype(tensor.dtype),
        )
        for tensor in bound.facts.outputs
    }
