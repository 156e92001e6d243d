"""The opset-17 variant gives the same numbers and holds nothing that opset 17 does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from promptray.export.build import build
from promptray.export.opset_17 import IR_VERSION, OPSET, to_opset_17
from promptray.runtime.bundle import Bundle
from promptray.runtime.errors import BuildError
from promptray.runtime.golden import read_golden
from promptray.runtime.graphs import own_bank
from promptray.runtime.preprocess import normalise
from tests import convnext_tiny

BUNDLES = ["carzero_bundle", "asg_both_bundle", "open_clip_bundle", "convnext_bundle"]


def require_opset_17(content: bytes) -> onnx.ModelProto:
    """Walk every node against the schemas of opset 17, independently of the code."""
    model = onnx.load_from_string(content)
    assert model.ir_version <= IR_VERSION
    assert [(each.domain, each.version) for each in model.opset_import] == [("", OPSET)]
    onnx.checker.check_model(model, full_check=True)
    for node in model.graph.node:
        schema = onnx.defs.get_schema(node.op_type, OPSET, node.domain)
        assert {item.name for item in node.attribute} <= set(schema.attributes), node.op_type
        assert schema.min_input <= len(node.input) <= schema.max_input, node.op_type
    return model


def run(content: bytes, feeds: dict[str, Any]) -> dict[str, np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    taken = {value.name: feeds[value.name] for value in session.get_inputs()}
    return dict(zip(names, session.run(names, taken), strict=True))


def require_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], bound: float) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.abs(found[name] - values).max() <= bound * max(1.0, np.abs(values).max()), name


@pytest.mark.parametrize("name", BUNDLES)
def test_every_graph_gives_the_same_numbers_in_opset_17(name: str, request: pytest.FixtureRequest) -> None:
    bundle = Bundle.open(request.getfixturevalue(name))
    manifest = bundle.manifest
    feeds: dict[str, Any] = {"pixels": normalise(read_golden(bundle).pictures[:2], manifest.preprocessing)}
    image = manifest.graph("image")
    assert image is not None
    feeds |= run(bundle.read(image.file), feeds)
    for graph in manifest.graphs:
        if graph.role == "text":
            continue
        head = manifest.head(graph.head or "")
        given = {**feeds, **(own_bank(bundle, head).batches()[0].tensors if head else {})}
        content = bundle.read(graph.file)
        older = to_opset_17(content)
        require_opset_17(older)
        require_equal(run(older, given), run(content, given), 2e-6)
        assert to_opset_17(content) == older


@pytest.fixture(scope="session")
def convnext_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("convnext")
    return build(convnext_tiny.write_recipe(folder), folder / "convnext.bundle", cache=folder / "cache").path


def few_nodes(nodes: list[Any], kind: int = TensorProto.FLOAT, **weights: Any) -> bytes:
    graph = helper.make_graph(
        nodes,
        "few",
        [helper.make_tensor_value_info("x", kind, ["rows", 8])],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    # The checker wants the shape of an output, too.
    return bytes(onnx.shape_inference.infer_shapes(model).SerializeToString())


LEVELS = np.linspace(-6, 6, 64, dtype=np.float32).reshape(8, 8)


@pytest.mark.parametrize("kind", ["none", "tanh"])
@pytest.mark.parametrize(
    ("dtype", "onnx_type"), [(np.float32, TensorProto.FLOAT), (np.float16, TensorProto.FLOAT16)]
)
def test_the_activation_is_written_out_without_losing_float16s_tail(
    kind: str, dtype: Any, onnx_type: int
) -> None:
    content = few_nodes([helper.make_node("Gelu", ["x"], ["y"], approximate=kind)], onnx_type)
    older = to_opset_17(content)
    assert "Gelu" not in {node.op_type for node in require_opset_17(older).graph.node}
    found, expected = (
        run(each, {"x": LEVELS.astype(dtype)})["y"].astype(np.float64) for each in (older, content)
    )
    # In float32, 1 + tanh(x) of ONNX Runtime's own kernel is 0 where the truth is 1e-7: half a step of 1.
    one_step, floor = (2e-6, 0.25) if dtype is np.float32 else (2.0**-11, 2.0**-10)
    assert np.all(np.abs(found - expected) <= one_step * np.maximum(np.abs(expected), floor))


@pytest.mark.parametrize("operator", ["ReduceMean", "ReduceL2", "ReduceMax", "ReduceSum"])
def test_axes_of_reductions_become_what_opset_17_has(operator: str) -> None:
    node = helper.make_node(operator, ["x", "axes"], ["y"], keepdims=0, noop_with_empty_axes=0)
    content = few_nodes([node], axes=np.array([-1]))
    older = to_opset_17(content)
    require_opset_17(older)
    require_equal(run(older, {"x": LEVELS}), run(content, {"x": LEVELS}), 0)


def refused(nodes: list[Any], says: str, kind: int = TensorProto.FLOAT, **weights: Any) -> None:
    with pytest.raises(BuildError) as caught:
        to_opset_17(few_nodes(nodes, kind, **weights))
    assert caught.value.code == "export.failed"
    assert says in caught.value.message
    assert caught.value.cure


def test_what_opset_17_cannot_express_is_refused_by_its_node() -> None:
    node = helper.make_node
    refused(
        [node("ReduceMean", ["x"], ["m"]), node("StringConcat", ["m", "m"], ["y"])], "has no such operator"
    )
    axes = [node("Shape", ["x"], ["s"], start=0, end=1), node("ReduceMean", ["x", "s"], ["y"])]
    refused(axes, "its axes are computed")
    refused(
        [node("Resize", ["x", "", "scales"], ["y"], antialias=1)],
        "has no antialias",
        scales=np.ones(2, np.float32),
    )
    pair = [node("QuantizeLinear", ["x", "scale"], ["q"]), node("DequantizeLinear", ["q", "scale"], ["y"])]
    refused(pair, "takes no float16 there", TensorProto.FLOAT16, scale=np.float16(0.5))
