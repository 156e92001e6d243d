"""What ONNX Runtime computes depends on how far it optimises, so every session here says how far."""

from __future__ import annotations

from typing import Any, Literal

import onnx
import onnxruntime as ort
import onnxscript
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from promptray.runtime.errors import BuildError

#: ``none``: the graph as it is written, each Q/DQ pair rounding where it stands: what a Q/DQ graph *means*.
#: ``all``: what the runtime's backend does; integer kernels take the place of Q/DQ pairs, and without VNNI
#: theirs is another arithmetic. Graphs are gated under the level they will run with.
Optimisation = Literal["none", "basic", "extended", "all"]
LEVELS: dict[str, Any] = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
FAULTS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(kind for kind in vars(ort_state).values() if isinstance(kind, type) and issubclass(kind, Exception)),
)


def open_session(
    content: bytes, optimisation: Optimisation = "none", *, threads: int | None = None
) -> ort.InferenceSession:
    """Compile a graph on the CPU.

    Raises
    ------
    BuildError
        ``quantise.graph`` when ONNX Runtime refuses it.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[optimisation]
    options.log_severity_level = 4
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except FAULTS as error:
        raise BuildError(
            "quantise.graph",
            f"ONNX Runtime refuses the graph: {(str(error).splitlines() or [''])[0][:300]}",
            artefact=f"onnxruntime {ort.__version__}, optimisation {optimisation}",
            cure="FP8 graphs run with optimisation none or basic; otherwise report the scheme and the family",
        ) from error


def versions() -> dict[str, str]:
    """Return the versions of what made a quantised graph."""
    libraries = (onnx, onnxscript, ort)
    return {library.__name__: library.__version__ for library in libraries}
