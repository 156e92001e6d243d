"""Schemes of ONNX Runtime's own for CPUs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from promptray.calibrate.quantise import ConvolutionInt8, DynamicInt8, Int8, WeightOnly, on_cpu, quantise
from promptray.calibrate.quantise.session import open_session
from promptray.runtime.errors import BuildError


def operators(content: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(content).graph.node)


@pytest.fixture(scope="module")
def convolutions(build: Any) -> tuple[bytes, list[dict[str, Any]]]:
    """Two convolutions with ReLU on four channels of 8 x 8, as a network reads flat rows."""
    random = np.random.default_rng(0)
    weights = {
        "plane": np.array([-1, 4, 8, 8]),
        "one": random.normal(size=(32, 4, 7, 7)).astype(np.float32),
        "two": random.normal(size=(8, 32, 3, 3)).astype(np.float32),
        "bias": random.normal(size=8).astype(np.float32),
        "row": np.array([0, -1]),
    }
    nodes = [
        helper.make_node("Reshape", ["x", "plane"], ["image"], "in"),
        helper.make_node("Conv", ["image", "one"], ["a"], "first", pads=[3, 3, 3, 3]),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "two", "bias"], ["c"], "second"),
        helper.make_node("Reshape", ["c", "row"], ["y"], "out"),
    ]
    feeds = [{"x": random.normal(size=(1, 256)).astype(np.float32)} for _ in range(4)]
    return build(nodes, weights, 256), feeds


def test_convolutions_stay_in_8_bits_between_each_other(convolutions: Any, tmp_path: Any) -> None:
    content, feeds = convolutions
    made = quantise(content, ConvolutionInt8(), feeds)
    assert [layer.name for layer in made.report.quantised] == ["first", "second"]
    expected, found = (open_session(graph, "all").run(None, feeds[0])[0] for graph in (content, made.content))
    assert 0 < np.abs(found - expected).max() < 0.03 * np.abs(expected).max()
    assert made.report.size_ratio < 0.6  # of a graph this small
    # What the scheme is for: the optimiser finds integer convolutions in it, and none in explicit Q/DQ.
    for scheme, kernels in ((ConvolutionInt8(), 2), (Int8(), 0)):
        quantised = quantise(content, scheme, feeds).content
        assert operators(optimised(quantised, tmp_path))["QLinearConv"] == kernels


def optimised(content: bytes, folder: Any) -> bytes:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return bytes((folder / "optimised.onnx").read_bytes())


@pytest.mark.parametrize(("role", "floats"), [("image", 0), ("text", 1)])
def test_every_quantised_matmul_becomes_an_integer_product(
    reference: Any, role: str, floats: int, tmp_path: Any
) -> None:
    """What ONNX Runtime makes of explicit Q/DQ; but for a product with a single row, which it calls Gemm."""
    feeds = reference.feeds[:2] if role == "image" else reference.text_feeds
    made = quantise(reference.graphs[role], Int8(), feeds)
    kernels = operators(optimised(made.content, tmp_path))
    products = sum("patch" not in layer.name for layer in made.report.quantised)
    assert kernels["MatMulIntegerToFloat"] == products - floats


def test_a_convolution_that_is_kept_stays_float(convolutions: Any) -> None:
    content, feeds = convolutions
    made = quantise(content, ConvolutionInt8(keep=["first"]), feeds)
    assert made.report.kept == {"first": "the scheme keeps it"}
    graph = onnx.load_from_string(made.content).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    weights = {node.name: made_by.get(node.input[1]) for node in graph.node if node.op_type == "Conv"}
    assert weights == {"first": None, "second": "DequantizeLinear"}


@pytest.fixture(scope="module")
def blocks(build: Any) -> tuple[bytes, list[dict[str, Any]]]:
    """Three blocks, each a convolution, and two beside each other that are put together, as SqueezeNet's."""
    random = np.random.default_rng(1)
    weights = {"plane": np.array([-1, 32, 8, 8]), "row": np.array([0, -1])}
    nodes = [helper.make_node("Reshape", ["x", "plane"], ["t0"], "in")]
    for n in range(3):
        width = 32 if n == 0 else 64
        for part, shape in (("s", (32, width, 1, 1)), ("l", (32, 32, 1, 1)), ("r", (32, 32, 3, 3))):
            weights[f"w{n}{part}"] = random.normal(size=shape).astype(np.float32) / 8
        nodes += [
            helper.make_node("Conv", [f"t{n}", f"w{n}s"], [f"s{n}"], f"blocks.{n}.s"),
            helper.make_node("Relu", [f"s{n}"], [f"a{n}"], f"blocks.{n}.relu"),
            helper.make_node("Conv", [f"a{n}", f"w{n}l"], [f"l{n}"], f"blocks.{n}.l"),
            helper.make_node("Conv", [f"a{n}", f"w{n}r"], [f"r{n}"], f"blocks.{n}.r", pads=[1, 1, 1, 1]),
            helper.make_node("Concat", [f"l{n}", f"r{n}"], [f"c{n}"], f"blocks.{n}.concat", axis=1),
            helper.make_node("MaxPool", [f"c{n}"], [f"t{n + 1}"], f"blocks.{n}.pool", kernel_shape=[1, 1]),
        ]
    nodes.append(helper.make_node("Reshape", ["t3", "row"], ["y"], "out"))
    feeds = [{"x": random.normal(size=(1, 2048)).astype(np.float32)} for _ in range(4)]
    return build(nodes, weights, 2048), feeds


GROUPS = ["blocks.0", "blocks.1", "blocks.2"]


def test_where_every_convolution_is_kept_nothing_is_rounded(blocks: Any) -> None:
    content, feeds = blocks
    made = quantise(content, ConvolutionInt8(keep=GROUPS), feeds)
    assert made.report.quantised == []
    assert operators(made.content)["QuantizeLinear"] == operators(made.content)["DequantizeLinear"] == 0


@pytest.mark.parametrize("group", GROUPS)
def test_a_block_that_is_kept_has_no_8_bits_beside_it(blocks: Any, group: str) -> None:
    content, feeds = blocks
    made = quantise(content, ConvolutionInt8(keep=[group]), feeds)
    assert {layer.group for layer in made.report.quantised} == {*GROUPS} - {group}
    nodes = onnx.load_from_string(made.content).graph.node
    made_by = {name: node for node in nodes for name in node.output}
    kept = [node for node in nodes if node.op_type == "Conv" and node.name.startswith(f"{group}.")]
    assert len(kept) == 3
    outputs = {node.output[0] for node in kept}
    for node in kept:
        before = made_by.get(node.input[0])
        assert before is not None
        assert before.op_type in ("Reshape", "Relu", "MaxPool")
    readers = [node.op_type for node in nodes if outputs & {*node.input}]
    assert sorted(readers) == ["Concat", "Relu"]


def test_where_nothing_is_kept_all_between_convolutions_is_in_8_bits(
    blocks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, feeds = blocks
    made = quantise(content, ConvolutionInt8(), feeds).content
    monkeypatch.setattr(on_cpu, "_beside", lambda graph, high: set())
    assert made == quantise(content, ConvolutionInt8(), feeds).content
    # Each convolution's inputs and output, each Concat's and pool's: Relu is part of the rounding before it.
    assert operators(made)["QuantizeLinear"] == 3 * 5 + 1


def test_convolutions_need_inputs(convolutions: Any) -> None:
    with pytest.raises(BuildError) as caught:
        quantise(convolutions[0], ConvolutionInt8())
    assert caught.value.code == "quantise.calibration"


def test_dynamic_ranges_and_bare_weights_need_none(reference: Any) -> None:
    text, feed = reference.graphs["text"], reference.text_feeds[0]
    names = [output.name for output in open_session(text).get_outputs()]
    expected = dict(zip(names, open_session(text).run(names, feed), strict=True))
    for scheme, operator in ((DynamicInt8(), "MatMulInteger"), (WeightOnly(), "MatMulNBits")):
        made = quantise(text, scheme)
        assert made.report.calibration_inputs == 0
        assert operators(made.content)[operator] == len(made.report.quantised) > 10
        assert made.report.size_ratio < 0.45
        for name, values in zip(names, open_session(made.content).run(names, feed), strict=True):
            assert np.abs(values - expected[name]).max() <= 0.1 * max(np.abs(expected[name]).max(), 1e-3)
