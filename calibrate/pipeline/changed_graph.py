"""The stage that changes one graph by a scheme, with real inputs of it; cached by all it depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from promptray.calibrate.image_set import ImageSet
from promptray.calibrate.quantise import Scheme
from promptray.calibrate.quantise.calibration_images import ImageFeeds
from promptray.calibrate.quantise.feeds import LazyFeeds, head_feeds, text_feeds
from promptray.calibrate.quantise.observe import Feeds
from promptray.export.draft import Draft
from promptray.export.stage_cache import StageCache
from promptray.runtime.bundle.manifest import Graph, Head
from promptray.runtime.graphs import own_bank
from promptray.runtime.machine_class import machine_class
from promptray.runtime.text import TextEncoder

#: What a graph was changed by; tests give one that is broken on purpose.
Quantise = Callable[[bytes, Scheme, Feeds], Any]


class GraphInputs:
    """Real inputs of each graph, made when a stage has to run; their hashes before.

    Parameters
    ----------
    fp32 : Draft
        Whose graphs are changed.
    calibration : ImageSet, optional
        None where nothing takes ranges from images.
    """

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
        """Return the inputs of a graph."""
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


def changed_graph(
    graph: Graph, content: bytes, scheme: Scheme, inputs: GraphInputs, stages: StageCache, change: Quantise
) -> Path:
    """Return the stage's folder: ``graph.onnx``, and ``report.json`` (`quantise.report.Report`).

    Raises
    ------
    BuildError
        ``quantise.*``.
    """

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
