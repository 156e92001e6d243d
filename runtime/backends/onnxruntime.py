"""ONNX Runtime on the CPU: the backend that every machine has."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import onnxruntime as ort

from promptray.runtime.backends import HOST, failed, no_prepare
from promptray.runtime.backends.declared import DeclaredGraph, Tensors, require_declared
from promptray.runtime.backends.host_settings import GATED, HostSettings, Optimisation
from promptray.runtime.backends.one_image import OneImageChain
from promptray.runtime.backends.onnx_files import require_self_contained
from promptray.runtime.backends.onnx_total import can_total, declared_total, with_total
from promptray.runtime.backends.onnxruntime_graph import (
    FAULTS,
    TYPES,
    OnnxRuntimeGraph,
)
from promptray.runtime.backends.onnxruntime_in_place import in_place
from promptray.runtime.backends.sequential import SequentialChain
from promptray.runtime.bundle.manifest import Graph as GraphFacts
from promptray.runtime.cores import host_threads
from promptray.runtime.errors import ScoringError

# Each of these wheels writes the same folder; with two installed, what runs is whichever came last.
_WHEELS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-qnn",
)

_LEVELS: dict[Optimisation, ort.GraphOptimizationLevel] = {
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
}


def installed_wheels() -> dict[str, str]:
    """Return the installed onnxruntime wheels with their versions."""
    found = {}
    for wheel in _WHEELS:
        try:
            found[wheel] = importlib.metadata.version(wheel)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def refuse_mixed_wheels() -> None:
    """Refuse to run on several onnxruntime wheels installed over each other.

    Raises
    ------
    ScoringError
        ``backend.mixed-wheels``.
    """
    wheels = installed_wheels()
    if len(wheels) > 1:
        names = " ".join(wheels)
        raise ScoringError(
            "backend.mixed-wheels",
            "several onnxruntime wheels are installed over each other; which one runs is undefined",
            expected="one wheel",
            found=", ".join(f"{name} {version}" for name, version in wheels.items()),
            cure=f"pip uninstall -y {names} && pip install onnxruntime",
        )


class OnnxRuntimeCpu:
    """Compiles graphs for ONNX Runtime's CPU provider, in true float32.

    Parameters
    ----------
    threads : int, optional
        Threads of one call; by default the cores this process may use.
    settings : HostSettings, optional
        `hint` is of no effect.
    """

    name = HOST
    device = "CPU"
    engines = None

    def __init__(self, *, threads: int | None = None, settings: HostSettings = GATED) -> None:
        self.threads, self.settings = host_threads(threads), settings
        refuse_mixed_wheels()
        self.version = ort.__version__

    def load(self, model: Callable[[], bytes], facts: GraphFacts) -> OnnxRuntimeGraph:
        """Compile an ONNX model held in memory: the bytes that were hashed are the bytes that run.

        Raises
        ------
        BundleError
            ``bundle.unsafe-path`` for a model that keeps weights in other files, which nobody hashed.
        ScoringError
            ``backend.failed``.
        """
        content = model()
        require_self_contained(content, facts.file)
        totalled = can_total(facts)
        if totalled:
            content = with_total(content, facts)
        session = make_session(
            content,
            facts,
            "CPUExecutionProvider",
            {},
            threads=self.threads,
            settings=self.settings,
            more=declared_total(facts) if totalled else None,
        )
        return OnnxRuntimeGraph(session, facts, totalled=totalled)

    def prepare_with(self, facts: DeclaredGraph) -> NoReturn:
        """Refuse: ONNX Runtime has no engine that prepares images."""
        raise no_prepare(self.name, "ONNX Runtime, which leaves it to the CPU")

    def chain(self, image: Any, heads: Sequence[Any]) -> OneImageChain:
        """Join bound graphs of this backend, which run one after the other."""
        several = SequentialChain(image, heads)
        return OneImageChain(image.facts, several, partial(in_place, image, heads))

    def require_usable(self) -> None:
        """Do nothing: a processor is not lost."""

    def close(self) -> None:
        """Do nothing: sessions go when nothing refers to them."""


def make_session(
    model: bytes,
    facts: GraphFacts,
    provider: str,
    provider_options: Mapping[str, str],
    *,
    threads: int,
    settings: HostSettings = GATED,
    more: Tensors | None = None,
) -> ort.InferenceSession:
    """Compile a model for one provider, and for no other.

    Parameters
    ----------
    model : bytes
        With all its weights inside (:func:`require_self_contained`).
    facts : GraphFacts
        The model must have these inputs and outputs.
    provider : str
    provider_options : mapping of str to str
    threads : int
        Of one call on the host.
    settings : HostSettings, optional
    more : mapping of str to tuple, optional
        Outputs that it has beside those.

    Raises
    ------
    ScoringError
        ``backend.failed``.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = _LEVELS[settings.optimisation]
    options.enable_cpu_mem_arena = settings.arena
    # Otherwise its threads look for more work after a call, on cores that the next session's need.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.use_deterministic_compute = provider != "CPUExecutionProvider"  # which always is
    try:
        # Its own fall-back prints to stdout and tries the same provider again.
        session = ort.InferenceSession(
            model, options, providers=[(provider, dict(provider_options))], enable_fallback=0
        )
    except FAULTS as error:
        raise failed(f"the {facts.role} graph could not be loaded", facts, error) from error
    require_declared(facts, _tensors(session.get_inputs()), _tensors(session.get_outputs()), more)
    return session


def _tensors(nodes: Sequence[Any]) -> dict[str, tuple[str, int]]:
    return {node.name: (TYPES.get(node.type, node.type), len(node.shape)) for node in nodes}
