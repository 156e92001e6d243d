"""Which graphs of a bundle engines are made from: the one rule that builder and reader share."""

from __future__ import annotations

from collections.abc import Sequence

from promptray.runtime.bundle.manifest import Graph, Manifest
from promptray.runtime.engines.facts import SourceGraph
from promptray.runtime.errors import ScoringError

#: The narrowest first. What a bundle holds beside fp32, its recipe asked for.
PRECISIONS = ("fp8-qdq", "int8-qdq", "fp16", "fp32")
FP32 = "fp32"


def newest_opset(backend: str, version: str) -> int:
    """Return the newest opset that a library's parser reads: 17 for TensorRT 8, 20 for later ones."""
    return 17 if backend == "tensorrt" and version.partition(".")[0] == "8" else 20


def sources(manifest: Manifest, backend: str, version: str, precision: str | None = None) -> list[Graph]:
    """Return the image graph and every head's, of which engines are made.

    Of each, the graph in the precision asked for or, where the bundle has none in it, in the next wider one;
    of those the newest opset that the library reads.

    Parameters
    ----------
    manifest : Manifest
    backend : {"tensorrt", "tensorrt_rtx", "onnxruntime-cuda"}
        A consumer of the graphs.
    version : str
        Of its library.
    precision : str, optional
        One of :data:`PRECISIONS`; by default the narrowest that the bundle has.

    Raises
    ------
    ScoringError
        ``engine.source`` where there is no such graph.
    """
    newest = newest_opset(backend, version)
    usable = [
        graph
        for graph in manifest.graphs
        if backend in graph.consumers and graph.precision in PRECISIONS and graph.opset <= newest
    ]
    there = [each for each in PRECISIONS if any(graph.precision == each for graph in usable)]
    if not there or precision not in (None, *there):
        raise _no_source(manifest, backend, version, precision or "any precision", there)
    order = PRECISIONS[PRECISIONS.index(precision or there[0]) :]
    chosen = []
    for role, head in (("image", None), *(("head", head.name) for head in manifest.heads)):
        of_role = [each for each in usable if (each.role, each.head) == (role, head)]
        best = min(of_role, key=lambda each: _rank(each, order), default=None)
        if best is None or best.precision not in order:
            title = role if head is None else f"{role} {head}"
            raise _no_source(manifest, backend, version, f"{title} in {order[0]} or wider", there)
        chosen.append(best)
    return chosen


def _rank(graph: Graph, order: Sequence[str]) -> tuple[int, int]:
    place = order.index(graph.precision) if graph.precision in order else len(order)
    return place, -graph.opset


def facts_of(graphs: Sequence[Graph], manifest: Manifest) -> list[SourceGraph]:
    """Return what is recorded of graphs that engines are made from."""
    return [
        SourceGraph(
            role="image" if graph.role == "image" else "head",
            head=graph.head,
            file=graph.file,
            sha256=manifest.files[graph.file].sha256,
            precision=graph.precision,
        )
        for graph in graphs
    ]


def precision_of(graphs: Sequence[Graph]) -> str:
    """Name the precision of engines: one word where all graphs agree, else each with its own."""
    if len({graph.precision for graph in graphs}) == 1:
        return graphs[0].precision
    return ", ".join(f"{graph.title} {graph.precision}" for graph in graphs)


def _no_source(
    manifest: Manifest, backend: str, version: str, wanted: str, there: Sequence[str]
) -> ScoringError:
    return ScoringError(
        "engine.source",
        "the bundle holds no graphs that this library can make such engines of",
        artefact=manifest.name,
        expected=f"graphs for {backend} {version}, opset {newest_opset(backend, version)} or older: {wanted}",
        found=", ".join(there) or "none",
        cure="choose one that it has with --precision; or build the bundle again with the section `tensorrt` "
        "in its recipe (`opset_17: true` for TensorRT 8)",
    )
