"""The bundle's fp32 graphs on the CPU: what engines are held against where there are images."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from promptray.runtime.backends import load_backend
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.manifest import Manifest
from promptray.runtime.errors import BuildError
from promptray.runtime.graphs import Graphs

BACKEND = "onnxruntime-cpu"


@dataclass(frozen=True)
class _Fp32:
    """A bundle of which only the fp32 graphs are seen: changed ones would otherwise run before them."""

    bundle: Bundle
    manifest: Manifest

    @property
    def short_hash(self) -> str:
        return self.bundle.short_hash

    def read(self, name: str) -> bytes:
        return self.bundle.read(name)


def original(bundle: Bundle, *, threads: int | None = None) -> Graphs:
    """Compile the fp32 graphs of a bundle for the CPU.

    Raises
    ------
    BuildError
        ``gate.images`` for a bundle that holds none of the image side or of a head.
    """
    manifest = bundle.manifest
    graphs = [
        msgspec.structs.replace(graph, consumers=[BACKEND])
        for graph in manifest.graphs
        if graph.precision == "fp32"
    ]
    roles = {(graph.role, graph.head) for graph in graphs}
    missing = [
        graph.title
        for graph in manifest.graphs
        if graph.role != "text" and (graph.role, graph.head) not in roles
    ]
    if missing:
        raise BuildError(
            "gate.images",
            "the bundle holds no fp32 graphs, so there is nothing to hold engines against on images",
            artefact=f"{manifest.name} {bundle.short_hash}",
            expected="fp32 graphs of the image side and of every head",
            found=f"none of {', '.join(dict.fromkeys(missing))}",
            cure="leave --images out: the golden pictures are the gate; or build a bundle without `quantise`",
        )
    own = _Fp32(bundle, msgspec.structs.replace(manifest, graphs=graphs, gated=[]))
    return Graphs(own, load_backend(BACKEND, threads=threads), prompts_per_batch=None)
