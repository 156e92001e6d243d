"""Typed float16: what overflows on real inputs stays float32, from its producer to its readers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import TopologicalSortPass
from onnxruntime.transformers.float16 import convert_float_to_float16

from promptray.calibrate.quantise import Float8, Float16, Int8, quantise
from promptray.calibrate.quantise.graph import Graph
from promptray.calibrate.quantise.session import open_session

WIDTH = 8


def run(content: bytes, feed: Any) -> Any:
    """Run by the standard's own evaluator: it rounds to float16 wherever the graph is typed so."""
    return ReferenceEvaluator(onnx.load_from_string(content)).run(None, dict(feed))[0]


@pytest.fixture(scope="module")
def overflowing(build: Any) -> tuple[bytes, list[dict[str, Any]]]:
    """``y = (300 * 300 * x + 1e-9) / 300 + x``: inside it reaches 180000, and epsilon vanishes in float16."""
    weights = {name: np.float32([300.0]) for name in ("factor", "again", "divisor")}
    weights["epsilon"] = np.float32([1e-9])
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["scaled"], "scale"),
        helper.make_node("Mul", ["scaled", "again"], ["great"], "great"),
        helper.make_node("Add", ["great", "epsilon"], ["safe"], "safe"),
        helper.make_node("Div", ["safe", "divisor"], ["back"], "back"),
        helper.make_node("Add", ["back", "x"], ["y"], "sum"),
    ]
    x = np.linspace(-2, 2, 5 * WIDTH).astype(np.float32).reshape(5, WIDTH)
    return build(nodes, weights, WIDTH), [{"x": x}]


def test_an_island_keeps_what_overflows(overflowing: Any) -> None:
    content, feeds = overflowing
    made = quantise(content, Float16(), feeds)
    assert set(made.report.kept) == {"great", "safe", "back"}
    assert made.report.kept["great"] == "great reaches 1.8e+05"
    np.testing.assert_allclose(run(made.content, feeds[0]), run(content, feeds[0]), rtol=2e-3, atol=2e-3)


def test_the_usual_converter_overflows_between_the_nodes_it_keeps(overflowing: Any) -> None:
    """Why the island is our own: told to keep the same nodes, the tool casts to float16 between them."""
    content, feeds = overflowing
    theirs = convert_float_to_float16(
        onnx.load_from_string(content), keep_io_types=True, node_block_list=["great", "safe", "back"]
    )
    ordered = onnx_ir.from_proto(theirs)
    TopologicalSortPass()(ordered)
    with np.errstate(over="ignore"):
        assert not np.isfinite(run(onnx_ir.to_proto(ordered).SerializeToString(), feeds[0])).all()


def test_headroom_says_how_much_larger_other_images_may_be(build: Any) -> None:
    content = build(
        [helper.make_node("Mul", ["x", "factor"], ["y"], "scale")], {"factor": np.float32([1000])}, 2
    )
    feeds = [{"x": np.float32([[20.0, -5.0]])}]
    assert quantise(content, Float16(headroom=3), feeds).report.kept == {}
    assert set(quantise(content, Float16(headroom=4), feeds).report.kept) == {"scale"}


def test_everything_else_is_float16_and_inputs_and_outputs_are_float32(reference: Any) -> None:
    content = quantise(reference.graphs["image"], Float16(), reference.feeds[:2]).content
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(content), strict_mode=True)
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    assert all(
        value.type.tensor_type.elem_type == TensorProto.FLOAT
        for value in (*model.graph.input, *model.graph.output)
    )
    for node in model.graph.node:
        if node.op_type in ("MatMul", "LayerNormalization", "Softmax", "Gelu"):
            assert kinds[node.output[0]] == TensorProto.FLOAT16, node.name
    assert all(tensor.data_type != TensorProto.FLOAT for tensor in model.graph.initializer if tensor.dims)
    assert sum(node.op_type == "LayerNormalization" for node in model.graph.node) == sum(
        node.op_type == "LayerNormalization" for node in Graph(reference.graphs["image"]).nodes
    )


def test_scores_hardly_move(reference: Any) -> None:
    made = quantise(reference.graphs["image"], Float16(), reference.feeds[:4])
    assert made.report.size_ratio < 0.55
    assert reference.error(made.content) < 2e-3


def test_a_group_may_be_kept(reference: Any) -> None:
    kept = "encoder.model.blocks.1"
    made = quantise(reference.graphs["image"], Float16(keep=[kept]), reference.feeds[:1])
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(made.content))
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    names = Graph(reference.graphs["image"]).weight_names
    products = [node for node in model.graph.node if node.op_type == "MatMul" and node.name in names]
    high = {names[node.name] for node in products if kinds[node.output[0]] == TensorProto.FLOAT}
    assert high == {f"{kept}.{part}" for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}


def test_quantised_layers_in_a_float16_rest_hold_the_same_integers(reference: Any) -> None:
    single, half = (
        quantise(reference.graphs["image"], Int8(rest=rest), reference.feeds[:4])
        for rest in ("float32", "float16")
    )
    ours, theirs = ({
        name.removesuffix(".float16"): array for name, array in Graph(made.content).constants.items()
        if array.dtype == np.int8
    } for made in (single, half))  # fmt: skip
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert half.report.size_ratio < single.report.size_ratio
    assert reference.error(half.content) < 1.2 * reference.error(single.content) + 0.005


def test_the_mask_of_padded_rows_stays_float32(reference: Any) -> None:
    """-1e9 is added to the attention of rows that pad a prompt; in float16 it would be infinite."""
    batch = reference.bank.batches(prompts_per_batch=8)[0]
    session = open_session(reference.graphs["image"])
    names = [output.name for output in session.get_outputs()]
    features = dict(zip(names, session.run(names, reference.feeds[0]), strict=True))
    feed = {**features, **batch.tensors}
    assert batch.tensors["row_bias"].min() <= -1e9
    made = quantise(reference.graphs["head"], Float16(), [feed])
    assert any("row_bias" in reason or "e+09" in reason for reason in made.report.kept.values())
    taken = {value.name for value in onnx.load_from_string(made.content).graph.input}
    fed = {name: values for name, values in feed.items() if name in taken}
    logits = [
        open_session(content).run(["logits"], fed)[0] for content in (reference.graphs["head"], made.content)
    ]
    assert np.isfinite(logits[1]).all()
    np.testing.assert_allclose(logits[1], logits[0], atol=0.02)


@pytest.mark.parametrize("scheme", [Int8(rest="float16"), Float8(rest="float16")], ids=["int8", "fp8"])
def test_scales_of_small_weights_stay_beside_those_of_their_inputs(build: Any, scheme: Any) -> None:
    """In float32 TensorRT would refuse the product: the scales of its operands would be of two types."""
    weight = (np.random.default_rng(0).uniform(-1e-3, 1e-3, (64, 64))).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
    x = np.random.default_rng(1).standard_normal((5, 64)).astype(np.float32)
    content = build(nodes, {"w": weight}, 64)
    made = quantise(content, scheme, [{"x": x}])
    graph = onnx.load_from_string(made.content).graph
    types = {each.name: each.data_type for each in graph.initializer}
    restored = [node for node in graph.node if node.op_type == "DequantizeLinear"]
    assert [types[node.input[1]] for node in restored] == [TensorProto.FLOAT16] * 2
    before, after = (open_session(each, "none").run(None, {"x": x})[0] for each in (content, made.content))
    assert np.abs(after - before).max() < 0.05 * np.abs(before).max()
