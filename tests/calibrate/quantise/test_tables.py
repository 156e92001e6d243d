"""Embedding tables in less, and the text graph of the edge box in int8."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from promptray.calibrate.quantise import DynamicInt8, Int8, Scheme, WeightOnly, quantise
from promptray.calibrate.quantise.embeddings import store_tables, store_weights
from promptray.calibrate.quantise.graph import Graph
from promptray.calibrate.quantise.layers import linear_layers
from promptray.calibrate.quantise.qdq import INT8, quantise_weight
from promptray.calibrate.quantise.sensitivity import ImageScores
from promptray.calibrate.quantise.session import open_session
from promptray.runtime.backends.onnxruntime import OnnxRuntimeCpu
from promptray.runtime.graphs import Graphs, encode_finding
from promptray.runtime.prompts import PromptBank
from promptray.runtime.text import TextEncoder


@pytest.fixture(scope="module")
def lookup(build: Any) -> tuple[bytes, np.ndarray]:
    """Rows of very different size: a scale for the whole table would lose the small ones."""
    random = np.random.default_rng(0)
    table = (random.normal(size=(64, 32)) * np.logspace(-3, 1, 64)[:, None]).astype(np.float32)
    nodes = [
        helper.make_node("Squeeze", ["x"], ["indices"], "flat"),
        helper.make_node("Gather", ["table", "indices"], ["y"], "lookup"),
    ]
    return build(nodes, {"table": table}, 1, dtype=np.int64), table


@pytest.mark.parametrize(
    ("stored", "bound", "ratio"), [("float16", 2**-11, 0.55), ("int8-rows", 1 / 250, 0.40)]
)
def test_every_row_keeps_its_own_precision(lookup: Any, stored: Any, bound: float, ratio: float) -> None:
    content, table = lookup
    graph = Graph(content)
    assert store_tables(graph, stored) == {"table": stored}
    found = open_session(graph.to_bytes()).run(None, {"x": np.arange(64)[:, None]})[0]
    error = np.abs(found - table).max(axis=1) / np.abs(table).max(axis=1)
    assert error.max() <= bound
    assert len(graph.to_bytes()) < ratio * len(content)


def test_a_table_that_is_read_elsewhere_stays(build: Any) -> None:
    table = np.ones((64, 32), np.float32)
    nodes = [
        helper.make_node("Squeeze", ["x"], ["indices"], "flat"),
        helper.make_node("Gather", ["table", "indices"], ["rows"], "lookup"),
        helper.make_node("MatMul", ["rows", "tied"], ["scores"], "product"),
        helper.make_node("Transpose", ["table"], ["turned"], "turn", perm=[1, 0]),
        helper.make_node("MatMul", ["scores", "turned"], ["y"], "other"),
    ]
    graph = Graph(build(nodes, {"table": table, "tied": np.eye(32, dtype=np.float32)}, 1, dtype=np.int64))
    # Folding gives the turned table a tensor of its own, so only a table with two readers is left.
    before = len(graph.consumers["table"])
    assert store_tables(graph, "int8-rows") == ({"table": "int8-rows"} if before == 1 else {})


@pytest.fixture(scope="module")
def added(build: Any) -> tuple[bytes, np.ndarray]:
    """Positions that are added, and a bias that stays."""
    random = np.random.default_rng(0)
    table = (random.normal(size=(64, 32)) * np.logspace(-3, 3, 64)[:, None]).astype(np.float32)
    nodes = [
        helper.make_node("Add", ["x", "positions"], ["placed"], "place"),
        helper.make_node("Add", ["placed", "bias"], ["y"], "shift"),
    ]
    bias = np.full(32, 1 / 3, np.float32)
    return build(nodes, {"positions": table, "bias": bias}, 32), table


@pytest.mark.parametrize("level", ["none", "all"])
def test_positions_that_are_added_are_float16(added: Any, level: Any) -> None:
    content, table = added
    graph = Graph(content)
    assert store_tables(graph, "int8-rows") == {"positions": "float16"}
    found = open_session(graph.to_bytes(), level).run(None, {"x": np.zeros((64, 32), np.float32)})[0]
    expected = table.astype(np.float16).astype(np.float32) + np.float32(1 / 3)
    np.testing.assert_array_equal(found, expected)
    assert len(graph.to_bytes()) < 0.6 * len(content)
    assert store_tables(Graph(content), "float32") == {}


@pytest.mark.parametrize("greatest", [1e5, np.inf, np.nan])
def test_positions_that_float16_cannot_hold_stay(build: Any, greatest: float) -> None:
    table = np.ones((64, 32), np.float32)
    table[3, 4] = greatest
    nodes = [helper.make_node("Add", ["x", "positions"], ["y"], "place")]
    assert store_tables(Graph(build(nodes, {"positions": table}, 32)), "float16") == {}


@pytest.mark.parametrize("level", ["none", "all"])
def test_a_weight_stored_in_int8_is_multiplied_in_float32(build: Any, level: Any) -> None:
    weight = np.random.default_rng(0).normal(size=(48, 64)).astype(np.float32)
    bias = np.full(48, 1 / 3, np.float32)
    nodes = [helper.make_node("Gemm", ["x", "weight", "bias"], ["y"], "only", transB=1)]
    content = build(nodes, {"weight": weight, "bias": bias}, 64)
    graph = Graph(content)
    store_weights(graph, linear_layers(graph)[0])
    found = open_session(graph.to_bytes(), level).run(None, {"x": np.eye(64, dtype=np.float32)})[0]
    numbers, scales = quantise_weight(weight, 0, INT8)
    np.testing.assert_array_equal(found, (numbers.astype(np.float32) * scales[:, None]).T + bias)
    assert len(graph.to_bytes()) < 0.35 * len(content)


@pytest.mark.parametrize("scheme", [DynamicInt8, WeightOnly], ids=lambda scheme: scheme.__name__)
def test_a_convolution_is_stored_in_int8_unless_the_scheme_keeps_it(
    convnext_image: bytes, scheme: Any
) -> None:
    graph = Graph(convnext_image)
    largest = max(
        (layer for layer in linear_layers(graph)[0] if layer.node.op_type == "Conv"),
        key=lambda layer: layer.weight.size,
    )
    made = quantise(convnext_image, scheme())
    assert "its weight is int8" in made.report.kept[largest.name]
    high = quantise(convnext_image, scheme(keep=[largest.name]))
    assert "int8" not in high.report.kept[largest.name]
    # Three bytes less of each weight, but for scales and names.
    assert high.report.bytes_after > made.report.bytes_after + 2.7 * largest.weight.size


@pytest.mark.parametrize(
    "scheme", [DynamicInt8(), WeightOnly(), Int8()], ids=lambda scheme: type(scheme).__name__
)
def test_a_convolution_of_one_plane_is_not(reference: Any, scheme: Scheme) -> None:
    made = quantise(reference.graphs["image"], scheme, reference.feeds[:1])
    assert "one plane" in made.report.kept["encoder.model.patch_embed.proj"]
    before, after = (onnx.load_from_string(each).graph for each in (reference.graphs["image"], made.content))
    weights = [
        {numpy_helper.to_array(each).tobytes() for each in graph.initializer} for graph in (before, after)
    ]
    (patches,) = [each for each in linear_layers(Graph(reference.graphs["image"]))[0] if each.of_one_plane]
    assert all(patches.weight.tobytes() in each for each in weights)


@pytest.mark.parametrize("scheme", [Int8(), DynamicInt8()], ids=lambda scheme: type(scheme).__name__)
def test_a_bank_made_by_an_int8_text_graph_scores_nearly_the_same(reference: Any, scheme: Scheme) -> None:
    """What the edge box does when a prompt is added: the gate of a text graph is on scores, too."""
    manifest, backend = reference.bundle.manifest, OnnxRuntimeCpu(threads=2)
    (only,) = manifest.heads
    facts = manifest.graph("text")
    made = quantise(reference.graphs["text"], scheme, reference.text_feeds)
    assert any("word_embeddings" in note for note in made.report.notes)
    assert made.report.size_ratio < 0.30
    graph = backend.load(lambda: made.content, facts).bind({})
    encoder = TextEncoder(manifest.text, reference.bundle.read(manifest.text.tokenizer))
    entries = [
        encode_finding(graph, only.bank, finding.key, encoder.encode_finding(finding.prompts))
        for finding in manifest.findings
    ]
    bank = PromptBank(only.bank, entries)
    head = Graphs(reference.bundle, backend, prompts_per_batch=None).bind(only, bank)
    logits = ImageScores(head, reference.feeds, "none")(reference.graphs["image"])
    difference = np.abs(logits - reference.logits).max() / reference.logits.std(axis=0).mean()
    assert 0 < difference < 0.05
