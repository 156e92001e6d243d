"""Embedding tables in less, and the text graph of the edge box in int8."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from promptray.calibrate.quantise import DynamicInt8, Int8, Scheme, quantise
from promptray.calibrate.quantise.embeddings import store_tables
from promptray.calibrate.quantise.graph import Graph
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
    assert store_tables(graph, stored) == ["table"]
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
    assert store_tables(graph, "int8-rows") == (["table"] if before == 1 else [])


@pytest.mark.parametrize("scheme", [Int8(), DynamicInt8()], ids=lambda scheme: type(scheme).__name__)
def test_a_bank_made_by_an_int8_text_graph_scores_nearly_the_same(reference: Any, scheme: Scheme) -> None:
    """What the edge box does when a prompt is added: the gate of a text graph is on scores, too."""
    manifest, backend = reference.bundle.manifest, OnnxRuntimeCpu(threads=2)
    (only,) = manifest.heads
    facts = manifest.graph("text")
    made = quantise(reference.graphs["text"], scheme, reference.text_feeds)
    assert any("word_embeddings" in note for note in made.report.notes)
    assert made.report.size_ratio < 0.45  # 64 wide: scales and nodes weigh more than in a real BERT
    graph = backend.load(made.content, facts).bind({})
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
