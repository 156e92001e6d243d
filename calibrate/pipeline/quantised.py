"""The stage that quantises: from the fp32 draft of a bundle to one with smaller graphs, not gated yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import onnx

from promptray.calibrate.image_set import ImageSet, Progress
from promptray.calibrate.pipeline.banks import with_added_by, with_float16_banks
from promptray.calibrate.pipeline.changed_graph import GraphInputs, Quantise, changed_graph
from promptray.calibrate.pipeline.recipe import BuildRecipe, precision_of
from promptray.calibrate.quantise import quantise
from promptray.calibrate.quantise.calibration_images import warnings_of
from promptray.calibrate.quantise.report import Report
from promptray.export.draft import Draft
from promptray.export.stage_cache import StageCache
from promptray.runtime.bundle.manifest import Graph, Manifest
from promptray.runtime.machine_class import consumers_here


@dataclass(frozen=True)
class Changed:
    """A draft with changed graphs.

    Attributes
    ----------
    draft : Draft
        Its changed graphs are for the backends of the recipe on this class of machine only.
    reports : mapping of str to Report
        By the graph's title.
    warnings : tuple of str
        What makes the images that ranges were taken from a poor set.
    """

    draft: Draft
    reports: Mapping[str, Report]
    warnings: tuple[str, ...] = ()


def quantised(
    recipe: BuildRecipe,
    fp32: Draft,
    calibration: ImageSet | None,
    stages: StageCache,
    progress: Progress,
    *,
    change: Quantise = quantise,
) -> Changed:
    """Quantise the graphs that the recipe names; each is a stage of its own.

    Parameters
    ----------
    recipe : BuildRecipe
    fp32 : Draft
        Of the original, or of a student.
    calibration : ImageSet, optional
    stages : StageCache
    progress : callable
    change : callable, optional
        Quantises one graph.

    Raises
    ------
    BuildError
        ``quantise.*``.
    """
    asked = recipe.quantise
    assert asked is not None  # noqa: S101 - the caller looked
    wanted = [(graph, asked.scheme_of(graph.role, graph.head)) for graph in fp32.manifest.graphs]
    todo = [(graph, scheme) for graph, scheme in wanted if scheme is not None]
    inputs = GraphInputs(fp32, calibration)
    made, reports = fp32, {}
    for number, (graph, scheme) in enumerate(todo):
        progress("quantise", f"{graph.title}: {precision_of(scheme)}", number / len(todo))
        folder = changed_graph(graph, fp32.read(graph.file), scheme, inputs, stages, change)
        report = msgspec.json.decode((folder / "report.json").read_bytes(), type=Report)
        made = _with_graph(made, graph, precision_of(scheme), folder / "graph.onnx")
        reports[graph.title] = report
    if asked.text is not None:
        made = with_added_by(made)
    if asked.bank == "float16":
        made = with_float16_banks(made)
    if asked.schemes and asked.image is None and fp32.manifest.provenance.distilled is not None:
        made = _with_student_for_here(made)
    if calibration is None:
        return Changed(made, reports)
    used, different = calibration.calibration_set, len(set(calibration.sha256s))
    provenance = msgspec.structs.replace(made.manifest.provenance, calibration=used)
    made = replace(made, manifest=_replaced(made.manifest, provenance=provenance))
    return Changed(made, reports, tuple(warnings_of(used.images, different, calibration.classes())))


def _with_graph(made: Draft, graph: Graph, precision: str, file: Path) -> Draft:
    """Put a changed graph in the place of the fp32 one, for this class of machine only."""
    model = onnx.load(file, load_external_data=False)
    opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    folder = graph.role if graph.head is None else f"{graph.role}/{graph.head}"
    changed = msgspec.structs.replace(
        graph,
        file=f"graphs/{folder}/{precision}-{opset}.onnx",
        precision=precision,
        opset=opset,
        consumers=_here(graph),
    )
    graphs = [changed if each == graph else each for each in made.manifest.graphs]
    files = {name: content for name, content in made.files.items() if name != graph.file}
    return Draft(_replaced(made.manifest, graphs=graphs), {**files, changed.file: file})


def _with_student_for_here(made: Draft) -> Draft:
    """Keep an fp32 student to this class of machine, too: beside graphs that are, it is gated here only."""
    graphs = [
        msgspec.structs.replace(each, consumers=_here(each)) if each.role == "image" else each
        for each in made.manifest.graphs
    ]
    return Draft(_replaced(made.manifest, graphs=graphs), made.files)


def _here(graph: Graph) -> list[str]:
    """Return the backends that a graph is for, each on this class of machines only.

    A text student's graph is for the class already.
    """
    return [consumers_here(consumer.partition("@")[0])[0] for consumer in graph.consumers]


def _replaced(manifest: Manifest, **changes: Any) -> Manifest:
    return msgspec.structs.replace(manifest, **changes)
