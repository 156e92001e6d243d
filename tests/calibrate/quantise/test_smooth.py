"""Smoothing changes nothing in float32, bit for bit, and helps int8 where there are outliers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from promptray.calibrate.quantise import Int8, quantise
from promptray.calibrate.quantise.graph import Graph
from promptray.calibrate.quantise.histogram import Magnitudes
from promptray.calibrate.quantise.layers import linear_layers
from promptray.calibrate.quantise.observe import observe
from promptray.calibrate.quantise.session import open_session
from promptray.calibrate.quantise.smooth import smooth

WIDTH = 64


def smoothed(content: bytes, feeds: Any, alpha: float = 0.5) -> tuple[Graph, tuple[int, int]]:
    graph = Graph(content)
    layers, _ = linear_layers(graph)
    seen: dict[str, Magnitudes] = {}
    for name, values in observe(graph, [layer.activation for layer in layers], feeds):
        seen.setdefault(name, Magnitudes()).add(values)
    counts = smooth(graph, layers, {name: each.channels for name, each in seen.items()}, alpha)
    return graph, counts


def run(content: bytes, feed: Any) -> list[Any]:
    return list(open_session(content).run(None, dict(feed)))


def require_equal(graph: Graph, original: bytes, feed: Any) -> None:
    # Folding constants alone moves the last bit: ONNX Runtime has another kernel for weights known
    # beforehand.
    folded = Graph(original).to_bytes()
    for ours, theirs in zip(run(graph.to_bytes(), feed), run(folded, feed), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(scope="module")
def outliers(build: Any) -> tuple[bytes, list[dict[str, Any]]]:
    """Normalisation with two great channels, a layer, ReLU, a layer."""
    random = np.random.default_rng(0)
    scale = np.ones(WIDTH, np.float32)
    scale[[3, 9]] = 40.0
    weights = {
        "scale": scale,
        "shift": random.normal(size=WIDTH).astype(np.float32),
        "first": random.normal(size=(WIDTH, WIDTH)).astype(np.float32),
        "bias": random.normal(size=WIDTH).astype(np.float32),
        "second": random.normal(size=(WIDTH, WIDTH)).astype(np.float32),
    }
    weights["first"][[3, 9]] *= 0.02
    weights["first"][:, 5] *= 30
    nodes = [
        helper.make_node("LayerNormalization", ["x", "scale", "shift"], ["n"], "norm"),
        helper.make_node("MatMul", ["n", "first"], ["m"], "one"),
        helper.make_node("Add", ["m", "bias"], ["a"], "add"),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "second"], ["y"], "two"),
    ]
    feeds = [{"x": random.normal(size=(32, WIDTH)).astype(np.float32)} for _ in range(4)]
    return build(nodes, weights, WIDTH), feeds


def test_float32_is_equal_bit_for_bit(outliers: Any) -> None:
    content, feeds = outliers
    graph, counts = smoothed(content, feeds)
    assert counts == (2, 0)
    assert not np.array_equal(graph.constants["first"], Graph(content).constants["first"])
    for feed in feeds:
        require_equal(graph, content, feed)


def test_outliers_move_into_the_weights(outliers: Any) -> None:
    content, feeds = outliers
    expected = run(content, feeds[0])[0]
    errors = {
        alpha: np.abs(
            run(quantise(content, Int8(calibration="max", smooth=alpha), feeds).content, feeds[0])[0]
            - expected
        ).mean()
        for alpha in (None, 0.5)
    }
    assert errors[0.5] < 0.6 * errors[None]


def test_the_reference_models_scores_stay_equal(reference: Any) -> None:
    graph, (done, left) = smoothed(reference.graphs["image"], reference.feeds[:4])
    assert (done, left) == (6, 8)  # fc1 and qkv of three blocks; not attention, GELU and the pooled features
    require_equal(graph, reference.graphs["image"], reference.feeds[5])


def test_a_normalisation_that_a_residual_sum_reads_too_is_left(reference: Any) -> None:
    """BERT adds after the norm: a factor there would not be undone."""
    text, feeds = reference.graphs["text"], reference.text_feeds
    graph, (done, left) = smoothed(text, feeds)
    assert left > done
    require_equal(graph, text, feeds[0])


def test_constants_that_others_read_are_left(outliers: Any) -> None:
    content, feeds = outliers
    model = onnx.load_from_string(content)
    model.graph.node.append(helper.make_node("Mul", ["x", "scale"], ["z"], "peek"))
    model.graph.output.append(helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["rows", WIDTH]))
    graph, counts = smoothed(model.SerializeToString(), feeds)
    assert counts == (1, 1)
    np.testing.assert_array_equal(graph.constants["scale"], Graph(content).constants["scale"])
