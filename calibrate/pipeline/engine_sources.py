"""The stage that puts into a bundle what engines are compiled from, each graph typed and proved.

Nothing of it is run by a runtime on a CPU. What can be proved here is that the graphs compute what they
should: ONNX Runtime computes them as they are written, and the golden scores must come out. Whether an engine
does is found out on the device that builds it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import onnx

from promptray.calibrate.image_set import ImageSet, Progress
from promptray.calibrate.pipeline.as_written import check_sources
from promptray.calibrate.pipeline.changed_graph import GraphInputs, Quantise, changed_graph
from promptray.calibrate.pipeline.plans import with_plans
from promptray.calibrate.pipeline.tensorrt_recipe import TensorRTRecipe
from promptray.calibrate.pipeline.with_prepare_graph import with_prepare_graph
from promptray.calibrate.quantise import Scheme
from promptray.calibrate.quantise.calibration_images import warnings_of
from promptray.calibrate.quantise.scheme import Int8
from promptray.export.draft import Draft
from promptray.export.opset_17 import OPSET, to_opset_17
from promptray.export.stage_cache import StageCache
from promptray.runtime.bundle.engines import Engines, EngineSource, Precision
from promptray.runtime.bundle.manifest import Graph, Manifest
from promptray.runtime.bundle.parity import CheckedSources


@dataclass(frozen=True)
class Sourced:
    """A draft with the sources of engines.

    Attributes
    ----------
    draft : Draft
    checked : list of CheckedSources
        For ``parity.json``.
    warnings : tuple of str
        What makes the images that ranges were taken from a poor set.
    """

    draft: Draft
    checked: list[CheckedSources]
    warnings: tuple[str, ...] = ()


def with_engine_sources(
    asked: TensorRTRecipe,
    fp32: Draft,
    made: Draft,
    calibration: ImageSet | None,
    stages: StageCache,
    progress: Progress,
    *,
    change: Quantise,
) -> Sourced:
    """Add the sources that a recipe asks for to a bundle; each is a stage of its own.

    Parameters
    ----------
    asked : TensorRTRecipe
    fp32 : Draft
        What they are made of: the original, or the student in the place of its image tower.
    made : Draft
        The bundle to be, whose own graphs may be quantised for a CPU.
    calibration : ImageSet, optional
    stages : StageCache
    progress : callable
    change : callable
        Types one graph.

    Raises
    ------
    BuildError
        ``quantise.*``; ``export.failed`` where opset 17 cannot express a graph; ``gate.failed`` where a set
        gives other golden scores or maps than it may.
    """
    makers = _Makers(asked, fp32, calibration, stages, change)
    found: dict[EngineSource, Path] = {}
    todo = [graph for graph in fp32.manifest.graphs if graph.role != "text"]
    for number, graph in enumerate(todo):
        precisions = ", ".join(asked.schemes(graph.role))
        progress("engines", f"{graph.title}: {precisions}", number / len(todo) / 2)
        found |= makers.sources(graph, made.manifest)
    draft = _with_sources(asked, made, found, calibration)
    progress("engines", "golden scores of the graphs as they are written", 0.6)
    checked = check_sources(draft, fp32, stages)
    if asked.prepare:
        draft = with_prepare_graph(draft)
    if asked.ahead_of_time:
        part = lambda stage, message, done: progress(stage, message, 0.7 + 0.3 * done)  # noqa: E731
        draft = with_plans(asked, draft, stages, part)
    if calibration is None:
        return Sourced(draft, checked)
    different = len(set(calibration.sha256s))
    warnings = warnings_of(calibration.calibration_set.images, different, calibration.classes())
    return Sourced(draft, checked, tuple(warnings))


class _Makers:
    """Makes the sources of a graph."""

    def __init__(
        self,
        asked: TensorRTRecipe,
        fp32: Draft,
        calibration: ImageSet | None,
        stages: StageCache,
        change: Quantise,
    ) -> None:
        self._asked, self._fp32, self._stages, self._change = asked, fp32, stages, change
        self._inputs = GraphInputs(fp32, calibration)

    def sources(self, graph: Graph, bundle: Manifest) -> dict[EngineSource, Path]:
        """Return the sources of a graph with their files, but fp32 ones that the bundle runs anyway."""
        running = {each.file for each in bundle.all_engine_sources}
        content = self._fp32.read(graph.file)
        found: dict[EngineSource, Path] = {}
        for precision, scheme in self._asked.schemes(graph.role).items():
            newest = self._typed(graph, content, scheme) if scheme else self._as_it_is(content)
            if scheme is not None or graph.file not in running:
                found[_source(graph, precision, graph.opset)] = newest
            if self._asked.opset_17:
                found[_source(graph, precision, OPSET)] = self._older(graph, content, scheme, newest)
        return found

    def _typed(self, graph: Graph, content: bytes, scheme: Scheme) -> Path:
        folder = changed_graph(graph, content, scheme, self._inputs, self._stages, self._change)
        return folder / "graph.onnx"

    def _as_it_is(self, content: bytes) -> Path:
        return self._kept("fp32", content, lambda: content)

    def _older(self, graph: Graph, content: bytes, scheme: Scheme | None, newest: Path) -> Path:
        """Return the opset-17 variant.

        In opset 17 a Q/DQ pair takes float32 only, so its int8 graph has a float32 rest around the same
        integers. TensorRT 8.6 is weakly typed, and is allowed float16 for that rest.
        """
        if isinstance(scheme, Int8):
            newest = self._typed(graph, content, msgspec.structs.replace(scheme, rest="float32"))
        source = newest.read_bytes()
        return self._kept("opset-17", source, lambda: to_opset_17(source))

    def _kept(self, stage: str, content: bytes, make: Callable[[], bytes]) -> Path:
        key = self._stages.key(
            stage, {"graph": hashlib.sha256(content).hexdigest(), "onnx": onnx.__version__}
        )
        folder, _ = self._stages.run(stage, key, lambda out: _write(out / "graph.onnx", make()))
        return folder / "graph.onnx"


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _source(graph: Graph, precision: Precision, opset: int) -> EngineSource:
    found = EngineSource(
        role="image" if graph.head is None else "head",
        head=graph.head,
        file="-",
        precision=precision,
        opset=opset,
    )
    return msgspec.structs.replace(found, file=f"{found.stem}.onnx")


def _with_sources(
    asked: TensorRTRecipe, made: Draft, found: Mapping[EngineSource, Path], calibration: ImageSet | None
) -> Draft:
    engines = Engines(
        settings=asked.settings,
        sources=list(found),
        calibration=calibration.calibration_set if calibration else None,
    )
    files = {source.file: path for source, path in found.items()}
    manifest = msgspec.structs.replace(made.manifest, engines=engines)
    return replace(made, manifest=manifest, files={**made.files, **files})
