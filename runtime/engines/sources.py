"""Which graphs of a bundle a set of engines is made from: the one rule that builder and reader share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import msgspec

from promptray.runtime.bundle.engines import NEWEST_OPSET, OLDEST_OPSET, EngineSource, Precision
from promptray.runtime.bundle.manifest import Graph, Manifest
from promptray.runtime.bundle.validate_engines import RTX_FP32_TARGET, capability
from promptray.runtime.engines.facts import Device, SourceGraph
from promptray.runtime.engines.libraries import newest_opset
from promptray.runtime.errors import ScoringError

#: The narrowest first. ONNX Runtime's CUDA provider has no fast kernels for graphs with Q/DQ nodes.
PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "tensorrt": ("fp8-qdq", "int8-qdq", "fp16", "fp32"),
    "tensorrt_rtx": ("fp8-qdq", "int8-qdq", "fp16", "fp32"),
    "onnxruntime-cuda": ("fp16", "fp32"),
}
#: What quantised engines must be faster than, which is all they promise: the first that a bundle has.
_BASELINES: tuple[Precision, ...] = ("fp16", "fp32")


@dataclass(frozen=True)
class SourceSet:
    """The graphs of one set of engines.

    Attributes
    ----------
    precision : str
    opset : int
        Newest that its compiler reads.
    sources : tuple of EngineSource
        The image graph, then every head in the manifest's order.
    """

    precision: Precision
    opset: int
    sources: tuple[EngineSource, ...]


def source_sets(manifest: Manifest) -> list[SourceSet]:
    """Return every set of graphs that engines can be compiled from; those of opset 20 first."""
    found: list[SourceSet] = []
    for opset in (NEWEST_OPSET, OLDEST_OPSET):
        for precision in get_args(Precision):
            sources = tuple(manifest.engine_sources(precision, opset))
            if sources and all(sources != each.sources for each in found):
                found.append(SourceSet(precision, opset, sources))
    return found


def precisions(manifest: Manifest, backend: str, version: str) -> list[Precision]:
    """Return the precisions that a set can be made in, the narrowest first."""
    opset = newest_opset(backend, version)
    return [each for each in PRECISIONS[backend] if manifest.engine_sources(each, opset)]


def baseline(
    manifest: Manifest, backend: str, version: str, graphs: Sequence[SourceGraph]
) -> Precision | None:
    """Return the precision of the set that quantised graphs must be faster than; None for other graphs."""
    if not any(graph.precision.endswith("-qdq") for graph in graphs):
        return None
    there = precisions(manifest, backend, version)
    return next((each for each in _BASELINES if each in there), None)


def sources(
    manifest: Manifest, backend: str, version: str, precision: str | None = None
) -> list[EngineSource]:
    """Return the image graph and every head's, of which a set is made.

    Parameters
    ----------
    manifest : Manifest
    backend : str
        One of :data:`PRECISIONS`.
    version : str
        Of its library.
    precision : str, optional
        By default the narrowest that the bundle has: beside fp32, its recipe asked for it.

    Raises
    ------
    ScoringError
        ``engine.source`` where the bundle has no such set.
    """
    there = precisions(manifest, backend, version)
    if not there or precision not in (None, *there):
        opset = newest_opset(backend, version)
        raise ScoringError(
            "engine.source",
            "the bundle holds no graphs that this library can make such engines of",
            artefact=manifest.name,
            expected=f"graphs in {precision or 'any precision'}, of opset {opset} or older, which "
            f"{backend} {version} reads",
            found=", ".join(there) or "none",
            cure="choose a --precision that it has; or build it again with a section `tensorrt` in its recipe"
            + (" and `opset_17: true` there" if opset == OLDEST_OPSET else ""),
        )
    chosen = next(each for each in there if precision in (None, each))
    return manifest.engine_sources(chosen, newest_opset(backend, version))


def facts_of(graphs: Sequence[EngineSource], manifest: Manifest) -> list[SourceGraph]:
    """Return what is recorded of the graphs of a set."""
    return [
        SourceGraph(
            role=each.role,
            head=each.head,
            file=each.file,
            sha256=manifest.files[each.file].sha256,
            precision=each.precision,
        )
        for each in graphs
    ]


def prepare_source(manifest: Manifest, backend: str, version: str, device: Device) -> SourceGraph | None:
    """Return the graph that prepares images, or None where the bundle has none or the library cannot take it.

    It is float32 and of opset 20: ONNX Runtime keeps no engines, TensorRT 8 reads no such opset, and
    TensorRT-RTX has no products of float32 for the oldest GPUs.
    """
    old = backend == "tensorrt_rtx" and capability(device.compute_capability) < RTX_FP32_TARGET
    readable = backend in ("tensorrt", "tensorrt_rtx") and newest_opset(backend, version) == NEWEST_OPSET
    return None if old or not readable else _prepare_graph(manifest)


def known_graphs(manifest: Manifest) -> list[SourceGraph]:
    """Return every graph of a bundle that an engine can be compiled from."""
    prepare = _prepare_graph(manifest)
    return facts_of(manifest.all_engine_sources, manifest) + ([prepare] if prepare else [])


def _prepare_graph(manifest: Manifest) -> SourceGraph | None:
    file = manifest.engines.prepare if manifest.engines else None
    if file is None:
        return None
    return SourceGraph(
        role="prepare", head=None, file=file, sha256=manifest.files[file].sha256, precision="fp32"
    )


def as_graph(source: EngineSource, manifest: Manifest) -> Graph:
    """Return a source as the graph that runs in its place: same inputs and outputs, another file."""
    running = manifest.graph(source.role, source.head)
    assert running is not None  # noqa: S101 - the manifest was checked: every role has one
    return msgspec.structs.replace(running, file=source.file, precision=source.precision, opset=source.opset)


def precision_of(graphs: Sequence[EngineSource | SourceGraph]) -> str:
    """Name the precision of a set: one word where all graphs agree, else each with its own."""
    if len({graph.precision for graph in graphs}) == 1:
        return graphs[0].precision
    return ", ".join(f"{graph.title} {graph.precision}" for graph in graphs)
