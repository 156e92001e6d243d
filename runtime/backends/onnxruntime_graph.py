"""Sessions of ONNX Runtime on the CPU as graphs: run, and with resident inputs bound."""

from __future__ import annotations

from collections.abc import Mapping

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from promptray.runtime.backends import Array, failed
from promptray.runtime.backends.finite import require_sound
from promptray.runtime.backends.onnx_total import TOTAL
from promptray.runtime.bundle.manifest import Graph as GraphFacts

# The binding raises its own exception classes, which share no base below Exception.
FAULTS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(kind for kind in vars(ort_state).values() if isinstance(kind, type) and issubclass(kind, Exception)),
)

#: ONNX Runtime's names of types, and ours.
TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64",
          "tensor(uint8)": "uint8"}  # fmt: skip


class OnnxRuntimeGraph:
    """A compiled session.

    Parameters
    ----------
    session : InferenceSession
    facts : GraphFacts
    totalled : bool
        Whether it has the output :data:`promptray.runtime.backends.onnx_total.TOTAL`.
    """

    def __init__(self, session: ort.InferenceSession, facts: GraphFacts, *, totalled: bool) -> None:
        self._session, self._facts, self._totalled = session, facts, totalled

    def bind(self, resident: Mapping[str, Array]) -> OnnxRuntimeBoundGraph:
        """Wrap the resident arrays once, so that a run copies nothing of them."""
        taken = {tensor.name for tensor in self._facts.inputs}
        values = {
            name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in resident.items() if name in taken
        }
        return OnnxRuntimeBoundGraph(self._session, self._facts, values, totalled=self._totalled)


class OnnxRuntimeBoundGraph:
    """A session with its resident inputs.

    Attributes
    ----------
    session : InferenceSession
    facts : GraphFacts
    resident : dict of str to OrtValue
    totalled : bool
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        facts: GraphFacts,
        resident: dict[str, ort.OrtValue],
        *,
        totalled: bool,
    ) -> None:
        self.session, self.facts, self.resident, self.totalled = session, facts, resident, totalled
        self._names = [output.name for output in session.get_outputs()]
        # A graph takes what it needs of what the side before it gives.
        self._taken = {tensor.name for tensor in facts.inputs} - resident.keys()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run and return every output by name, as arrays of the caller's own.

        Raises
        ------
        ScoringError
            ``backend.failed`` with the runtime's first line; ``score.not-finite``.
        """
        feeds = dict(self.resident)
        for name in self._taken & inputs.keys():
            array = inputs[name]
            feeds[name] = ort.OrtValue.ortvalue_from_numpy(array)
        try:
            results = self.session.run_with_ort_values(None, feeds)
        except FAULTS as error:
            raise failed(f"the {self.facts.role} graph failed", self.facts, error) from error
        # Copies: an output that a graph hands through lies where its input does, which is not ours to keep.
        outputs = {name: value.numpy() for name, value in zip(self._names, results, strict=True)}
        total = outputs.pop(TOTAL) if self.totalled else None
        require_sound(self.facts.role, inputs, outputs, total)
        return outputs
