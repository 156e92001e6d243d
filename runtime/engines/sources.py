"""Which sets of graphs a bundle offers to compile engines from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from promptray.runtime.bundle.engines import NEWEST_OPSET, OLDEST_OPSET, EngineSource, Precision
from promptray.runtime.bundle.manifest import Manifest
from promptray.runtime.engines.facts import SourceGraph
from promptray.runtime.errors import BundleError

#: What ONNX Runtime's CUDA provider runs faster than fp32.
_OF_CUDA: tuple[Precision, ...] = ("fp32", "fp16")


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


def sources_for(manifest: Manifest, backend: str, version: str, precision: Precision) -> list[SourceGraph]:
    """Return the graphs that a backend compiles a set of engines from.

    Parameters
    ----------
    manifest : Manifest
        Of a bundle, whose files are listed.
    backend : {"tensorrt", "tensorrt_rtx", "onnxruntime-cuda"}
    version : str
        Of the library that compiles.
    precision : str

    Raises
    ------
    BundleError
        ``engine.no-source`` with the precisions that the bundle has sources of.
    """
    opset = OLDEST_OPSET if backend == "tensorrt" and version.startswith("8.") else NEWEST_OPSET
    allowed = _OF_CUDA if backend == "onnxruntime-cuda" else get_args(Precision)
    sources = manifest.engine_sources(precision, opset) if precision in allowed else []
    if not sources:
        there = [name for name in allowed if manifest.engine_sources(name, opset)]
        more = ", and opset_17: true for TensorRT 8.6" if opset == OLDEST_OPSET else ""
        raise BundleError(
            "engine.no-source",
            f"the bundle holds no {precision} graphs that {backend} {version} compiles engines from",
            artefact=manifest.name,
            expected=f"one of {', '.join(there)}" if there else "a set of graphs of this opset and precision",
            found=", ".join(f"{each.precision}, opset {each.opset}" for each in source_sets(manifest)),
            cure=f"build it with a recipe whose section 'tensorrt' says precision: {precision}{more}",
        )
    return [
        SourceGraph(
            role=each.role,
            head=each.head,
            file=each.file,
            sha256=manifest.files[each.file].sha256,
            precision=each.precision,
        )
        for each in sources
    ]
