"""The stage that quantises: from the fp32 draft of a bundle to one with smaller graphs, not gated yet."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx

from promptray.calibrate.image_set import ImageSet, Progress
from promptray.calibrate.pipeline.banks import with_added_by, with_float16_banks
from promptray.calibrate.pipeline.recipe import BuildRecipe, precision_of
from promptray.calibrate.quantise import Scheme, quantise
from promptray.calibrate.quantise.calibration_images import ImageFeeds, warnings_of
from promptray.calibrate.quantise.feeds import LazyFeeds, head_feeds, text_feeds
from promptray.calibrate.quantise.observe import Feeds
from promptray.calibrate.quantise.report import Report
from promptray.export.draft import GATED_ON, Draft
from promptray.export.stage_cache import StageCache
from promptray.runtime.bundle.manifest import Graph, Head, Manifest
from promptray.runtime.graphs import own_bank
from promptray.runtime.machine_class import consumers_here, machine_class
from promptray.runtime.text import TextEncoder

#: What a graph was changed by; tests give one that is broken on purpose.
Quantise = Callable[[bytes, Scheme, Feeds], Any]


@dataclass(frozen=True)
class Changed:
    """A draft with changed graphs.

    Attributes
    ----------
    draft : Draft
        Its changed graphs are for this backend on this class of machine only.
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
    inputs = _Inputs(fp32, calibration)
    made, reports = fp32, {}
    for number, (graph, scheme) in enumerate(todo):
        progress("quantise", f"{graph.title}: {precision_of(scheme)}", number / len(todo))
        folder = _stage(graph, fp32.read(graph.file), scheme, inputs, stages, change)
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


class _Inputs:
    """Real inputs of each graph, made when a stage has to run; their hashes before."""

    def __init__(self, fp32: Draft, calibration: ImageSet | None) -> None:
        self._fp32, self._images = fp32, calibration

    def key(self, graph: Graph) -> object:
        """Return what the inputs of a graph depend on."""
        manifest = self._fp32.manifest
        if graph.role == "text":
            rule = manifest.text
            assert rule is not None  # noqa: S101 - a text graph has a rule
            tokenizer = hashlib.sha256(self._fp32.read(rule.tokenizer)).hexdigest()
            wordings = [[each.prompts, each.negative_prompts] for each in self._text_findings()]
            return [msgspec.to_builtins(rule), tokenizer, wordings]
        parts: dict[str, object] = {
            "images": self._images.sha256s if self._images else None,
            "preprocessing": msgspec.to_builtins(manifest.preprocessing),
        }
        if graph.role == "head":
            head = self._head(graph)
            parts["bank"] = hashlib.sha256(self._fp32.read(head.bank.file)).hexdigest()
            parts["image"] = hashlib.sha256(self._image_graph()).hexdigest()
        return parts

    def feeds(self, graph: Graph) -> Feeds:
        manifest = self._fp32.manifest
        if graph.role == "text":
            assert manifest.text is not None  # noqa: S101 - a text graph has a rule
            encoder = TextEncoder(manifest.text, self._fp32.read(manifest.text.tokenizer))
            return text_feeds(
                [
                    encoder.encode_finding(each.prompts, each.negative_prompts)
                    for each in self._text_findings()
                ]
            )
        if self._images is None:
            return ()
        pictures = np.stack(self._images.pictures(self._images.rows))
        feeds = ImageFeeds(pictures, self._images.preprocessing)
        if graph.role == "image":
            return feeds
        return head_feeds(self._image_graph(), own_bank(self._fp32, self._head(graph)), feeds)

    def _text_findings(self) -> Sequence[Any]:
        head = self._fp32.manifest.text_head
        return self._fp32.manifest.findings_of(head.name) if head else []

    def _head(self, graph: Graph) -> Head:
        head = self._fp32.manifest.head(graph.head or "")
        assert head is not None  # noqa: S101 - the manifest's own graph
        return head

    def _image_graph(self) -> bytes:
        graph = self._fp32.manifest.graph("image")
        assert graph is not None  # noqa: S101 - every model has one
        return self._fp32.read(graph.file)


def _stage(
    graph: Graph, content: bytes, scheme: Scheme, inputs: _Inputs, stages: StageCache, change: Quantise
) -> Path:
    def produce(folder: Path) -> None:
        made = change(content, scheme, LazyFeeds(lambda: inputs.feeds(graph)))
        (folder / "graph.onnx").write_bytes(made.content)
        (folder / "report.json").write_bytes(msgspec.json.encode(made.report))

    key = stages.key(
        "quantise",
        {
            "change": f"{change.__module__}.{change.__qualname__}",
            "machine": machine_class(),  # ranges are taken from what this machine computes
            "graph": hashlib.sha256(content).hexdigest(),
            "scheme": msgspec.to_builtins(scheme),
            "inputs": inputs.key(graph),
        },
    )
    return stages.run("quantise", key, produce)[0]


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
        consumers=[consumers_here(GATED_ON)[0]],
    )
    graphs = [changed if each == graph else each for each in made.manifest.graphs]
    files = {name: content for name, content in made.files.items() if name != graph.file}
    return Draft(_replaced(made.manifest, graphs=graphs), {**files, changed.file: file})


def _with_student_for_here(made: Draft) -> Draft:
    """Keep an fp32 student to this class of machine, too: beside graphs that are, it is gated here only."""
    graphs = [
        msgspec.structs.replace(each, consumers=[consumers_here(GATED_ON)[0]])
        if each.role == "image"
        else each
        for each in made.manifest.graphs
    ]
    return Draft(_replaced(made.manifest, graphs=graphs), made.files)


def _replaced(manifest: Manifest, **changes: Any) -> Manifest:
    return msgspec.structs.replace(manifest, **changes)
