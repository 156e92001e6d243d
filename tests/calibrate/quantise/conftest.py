"""The reference model's graphs with real pictures, and graphs of a few nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from promptray.calibrate.quantise.calibration_images import ImageFeeds
from promptray.calibrate.quantise.feeds import text_feeds
from promptray.calibrate.quantise.sensitivity import ImageScores
from promptray.runtime.backends.onnxruntime import OnnxRuntimeCpu
from promptray.runtime.bundle import Bundle
from promptray.runtime.golden import read_golden
from promptray.runtime.graphs import Graphs, own_bank
from promptray.runtime.prompts import PromptBank
from promptray.runtime.text import TextEncoder


@dataclass(frozen=True)
class Model:
    """A bundle's fp32 graphs, its golden pictures and its scores of them."""

    bundle: Bundle
    graphs: dict[str, bytes]
    text_feeds: list[Any]
    feeds: ImageFeeds
    bank: PromptBank
    score: ImageScores
    logits: Any

    def error(self, content: bytes) -> float:
        """Greatest difference of a score, as a share of the spread of scores over images."""
        return float(np.abs(self.score(content) - self.logits).max() / self.logits.std(axis=0).mean())


@pytest.fixture(scope="session")
def reference(reference_bundle: Path) -> Model:
    bundle = Bundle.open(reference_bundle)
    manifest = bundle.manifest
    graphs = {graph.role: bundle.read(graph.file) for graph in manifest.graphs}
    feeds = ImageFeeds(read_golden(bundle).pictures, manifest.preprocessing)
    (only,) = manifest.heads
    bank = own_bank(bundle, only)
    head = Graphs(bundle, OnnxRuntimeCpu(threads=2), prompts_per_batch=None).bind(only, bank)
    score = ImageScores(head, feeds, "none")
    assert manifest.text is not None
    encoder = TextEncoder(manifest.text, bundle.read(manifest.text.tokenizer))
    texts = text_feeds([encoder.encode_finding(finding.prompts) for finding in manifest.findings])
    return Model(bundle, graphs, texts, feeds, bank, score, score(graphs["image"]))


@pytest.fixture(scope="session")
def convnext_image() -> bytes:
    from promptray.export.families import family
    from promptray.export.onnx_graph import export_graph
    from tests.convnext_tiny import CHECKPOINTS, FOLDER

    model = family("convnext").load(FOLDER / CHECKPOINTS["torchvision"], None, {"preprocessing": "squash"})
    return export_graph(model.image, "image")


Build = Callable[..., bytes]


@pytest.fixture(scope="session")
def build() -> Build:
    """``build(nodes, weights, width)``: a graph from ``x`` (rows, width) to ``y``, all float32."""

    def make(nodes: list[Any], weights: dict[str, Any], width: int, *, dtype: Any = np.float32) -> bytes:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        graph = helper.make_graph(
            nodes,
            "few nodes",
            [helper.make_tensor_value_info("x", kind, ["rows", width])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", "columns"])],
            [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())

    return make
