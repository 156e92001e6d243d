"""Which of a bundle's graphs runs: one gated on the backend, one for any machine, or an engine's source."""

from __future__ import annotations

import msgspec

from promptray.runtime.backends import HOST
from promptray.runtime.bundle.manifest import Graph, Manifest
from promptray.runtime.engines.facts import EngineFacts
from promptray.runtime.errors import ScoringError
from promptray.runtime.machine_class import consumers_here


def gated_graph(manifest: Manifest, backend: str, role: str, head: str | None) -> Graph:
    """Return the graph of a role that was gated on a backend of this machine.

    Raises
    ------
    ScoringError
        ``backend.unavailable``.
    """
    facts = manifest.graph_for(role, consumers_here(backend), head)
    if facts is None:
        wanted = role if head is None else f"{role} {head!r}"
        raise ScoringError(
            "backend.unavailable",
            f"the bundle has no graph of the {wanted} that was gated on this backend and machine class",
            artefact=backend,
            cure="use a backend that `promptray inspect` lists for every graph",
        )
    return facts


def graph_for_every_machine(manifest: Manifest, role: str, head: str | None) -> Graph:
    """Return the graph of a role that ONNX Runtime may run on the processor of any machine: an fp32 one.

    For a server elsewhere, whose class of machine nobody knows here.

    Raises
    ------
    ScoringError
        ``backend.unavailable`` where the bundle has only graphs for classes of machines.
    """
    facts = manifest.graph_for(role, (HOST,), head)
    if facts is None:
        own = [each for each in manifest.graphs if (each.role, each.head) == (role, head)]
        raise ScoringError(
            "backend.unavailable",
            "the graph was changed and gated for classes of machines; on another it gives other scores",
            artefact=role if head is None else f"{role} {head}",
            expected=f"a graph for {HOST} on every machine: fp32",
            found=", ".join(f"{each.precision} for {', '.join(each.consumers)}" for each in own),
            cure="build the bundle without its recipe's section 'quantise'",
        )
    return facts


def engine_graph(manifest: Manifest, engines: EngineFacts, role: str, head: str | None) -> Graph:
    """Return the facts of the graph that an engine was made from: inputs and outputs are those of its role.

    Raises
    ------
    ScoringError
        ``engine.stale`` where the bundle has another graph now.
    """
    declared = manifest.graph(role, head)
    source = next((each for each in engines.graphs if (each.role, each.head) == (role, head)), None)
    listed = manifest.files.get(source.file) if source else None
    if declared is None or source is None or listed is None or listed.sha256 != source.sha256:
        raise ScoringError(
            "engine.stale",
            "the engines were made from other graphs than the bundle has",
            artefact=role if head is None else f"{role} {head}",
            expected="no such graph" if listed is None else listed.sha256,
            found="no such engine" if source is None else source.sha256,
            cure=f"`promptray engine BUNDLE --backend {engines.backend} --rebuild`",
        )
    return msgspec.structs.replace(declared, file=source.file, precision=source.precision)
