"""Backends run graphs. Each is one module that offers the small protocol below.

A backend compiles a graph once (:meth:`Backend.load`). A graph is then bound to arrays that stay the same
over many calls, the prompt bank above all (:meth:`Graph.bind`), and the bound graph is run with what changes
(:meth:`BoundGraph.run`). Binding is what lets a device keep the bank resident, and what makes a change of
prompts atomic: a new bound graph replaces the old one in a single assignment.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from promptray.runtime.bundle.manifest import Graph as GraphFacts
from promptray.runtime.bundle.manifest import Manifest
from promptray.runtime.errors import ScoringError
from promptray.runtime.machine_class import consumers_here

Array = NDArray[Any]


class BackendFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ran, where and why: shown in every result.

    Attributes
    ----------
    name : str
        The name ``backend=`` takes, also the consumer named in the bundle's graphs.
    version : str
        Version of the library behind it.
    device : str
        The device the graphs run on.
    precision : str
        Precision of the graphs that score: one word where all have the same, else each with its precision.
    threads : int
        Threads of one call.
    reason : str
        Why this backend was chosen.
    gated_as : str or None
        What the changed graphs that score were gated as, say ``onnxruntime-cpu@x86_64-avx2``: another class
        of machine gives other scores. None where no graph was changed.
    """

    name: str
    version: str
    device: str
    precision: str
    threads: int
    reason: str
    gated_as: str | None


class BoundGraph(Protocol):
    """A compiled graph with its resident inputs. ``run`` is thread-safe."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run with the remaining inputs; return every output by name."""
        ...


class Graph(Protocol):
    """A compiled graph. ``bind`` is thread-safe."""

    def bind(self, resident: Mapping[str, Array]) -> BoundGraph:
        """Keep these inputs on the device; the others are given to each run."""
        ...


class Backend(Protocol):
    """Compiles graphs for one device."""

    name: str
    version: str
    device: str
    threads: int

    def load(self, model: bytes, facts: GraphFacts) -> Graph:
        """Compile an ONNX model.

        Raises
        ------
        ScoringError
            ``backend.failed`` when the model cannot be compiled.
        """
        ...


#: Backend -> the module whose ``open_backend(threads=...)`` makes it. In the order "auto" prefers them.
_MODULES: dict[str, str] = {"onnxruntime-cpu": "promptray.runtime.backends.onnxruntime"}
NAMES: tuple[str, ...] = tuple(_MODULES)


def load_backend(name: str, *, threads: int | None = None) -> Backend:
    """Make a backend of :data:`NAMES`."""
    backend: Backend = importlib.import_module(_MODULES[name]).open_backend(threads=threads)
    return backend


def choose_backend(name: str, *, threads: int | None, manifest: Manifest) -> tuple[Backend, str]:
    """Open a backend by name, or choose one for ``"auto"``; never another than the one asked for.

    Parameters
    ----------
    name : str
        One of :data:`NAMES`, or ``"auto"``.
    threads : int or None
        Threads of one call; None lets the backend use every core of this process.
    manifest : Manifest
        Of the bundle: a backend can be used where all its graphs were gated on it and, if they are changed
        ones, on this class of machine.

    Returns
    -------
    (Backend, str)
        The backend and why it was chosen.

    Raises
    ------
    ScoringError
        ``backend.unavailable`` for an unknown name, or one the bundle was not gated on on this class of
        machine.
    """
    if name != "auto" and name not in NAMES:
        raise ScoringError(
            "backend.unavailable",
            "no such backend",
            artefact=name,
            expected=f"auto or one of {', '.join(NAMES)}",
            cure="run `promptray doctor` to see what this machine can run",
        )
    usable = [known for known in NAMES if _is_gated(manifest, known)]
    chosen = usable[0] if name == "auto" and usable else name
    if chosen not in usable:
        raise _ungated(name, usable, manifest)
    reason = (
        "asked for by the caller"
        if name != "auto"
        else f"auto: the first of the backends this bundle was gated on ({', '.join(usable)})"
    )
    return load_backend(chosen, threads=threads), reason


def _is_gated(manifest: Manifest, backend: str) -> bool:
    """Tell whether every graph has a variant that was gated on a backend on this class of machine."""
    needed = {(graph.role, graph.head) for graph in manifest.graphs}
    return all(manifest.graph_for(role, consumers_here(backend), head) for role, head in needed)


def _ungated(name: str, usable: list[str], manifest: Manifest) -> ScoringError:
    """Say why a bundle cannot be used, and on which machines it can."""
    pairs = sorted({each for graph in manifest.graphs for each in graph.consumers if "@" in each})
    of_class = [pair for pair in pairs if pair.partition("@")[0] == name or name == "auto"]
    if usable or not of_class:
        return ScoringError(
            "backend.unavailable",
            "the bundle's graphs were not gated on this backend",
            artefact=name,
            expected=", ".join(usable) or "a bundle gated on a backend of this software",
            cure="build the bundle again with this version, or use one that `promptray inspect` lists",
        )
    return ScoringError(
        "backend.unavailable",
        "the bundle's changed graphs were gated on another class of machine, which computes them otherwise",
        artefact=name,
        expected=" or ".join(of_class),
        found=f"this machine is {consumers_here(name)[0].partition('@')[2]}",
        cure="run `promptray build` with the same recipe on such a machine, which gates it there; or without "
        "its section 'quantise': fp32 graphs run on every machine",
    )


def require_finite(outputs: Mapping[str, Array], role: str) -> None:
    """Refuse outputs that hold NaN or infinity: they would become a score.

    Raises
    ------
    ScoringError
        ``score.not-finite``, naming the output.
    """
    for name, values in outputs.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ScoringError(
                "score.not-finite",
                "the model produced a value that is no number, so there is no score",
                artefact=f"{role} graph, output {name}",
                cure="run `promptray verify` on the bundle; report the image's type if it passes",
            )
