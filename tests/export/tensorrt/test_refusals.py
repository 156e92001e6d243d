"""What TensorRT does not take is refused with our own words and a cure; TensorRT-RTX is the real one."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from promptray.export.tensorrt import Flavour, Profile, build_engine
from promptray.export.tensorrt.refusals import refusal
from promptray.runtime.engines.settings import Settings
from promptray.runtime.errors import BuildError
from tests.export.tensorrt.small import WIDTH, build, graph, product, profile, quantised
from tests.rtx import needs_rtx

pytestmark = needs_rtx


def external() -> bytes:
    model = onnx.load_from_string(product())
    weight = model.graph.initializer[0]
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    weight.ClearField("raw_data")
    return bytes(model.SerializeToString())


def attention() -> bytes:
    node = helper.make_node("Attention", ["x", "x", "x"], ["y"], "attend", q_num_heads=1, kv_num_heads=1)
    return graph([node], {}, opset=23, ir=11)


def unknown_operator() -> bytes:
    return graph([helper.make_node("Foo", ["x"], ["y"], "no_such", domain="of.others")], {})


def quantised_bias() -> bytes:
    nodes = [
        helper.make_node("DequantizeLinear", ["b", "s"], ["bias"], "bias_dequantised"),
        helper.make_node("Add", ["x", "bias"], ["y"], "sum"),
    ]
    return graph(nodes, {"b": np.ones(WIDTH, np.int32), "s": np.array(0.5, np.float32)})


def float8() -> bytes:
    return quantised(ml_dtypes.float8_e4m3fn, TensorProto.FLOAT8E4M3FN)


def rows_of_int8() -> bytes:
    table = np.ones((16, WIDTH), np.int8)
    nodes = [
        helper.make_node("Gather", ["t", "i"], ["row"], "look_up"),
        helper.make_node("DequantizeLinear", ["row", "s"], ["real"], "dequantise"),
        helper.make_node("Add", ["x", "real"], ["y"], "sum"),
    ]
    return graph(nodes, {"t": table, "i": np.array([3]), "s": np.array(0.5, np.float32)})


CASES: dict[str, tuple[Callable[[], bytes], str, str, str]] = {
    # graph -> capability, our words, the cure's
    "operator set": (lambda: product(opset=21), "8.6", "operator set is newer", "build the bundle again"),
    "file format": (lambda: product(ir=11), "8.6", "file format is newer", "build the bundle again"),
    "Attention": (attention, "8.6", "operator Attention.*node attend", "build the bundle again"),
    "weights outside": (external, "8.6", "keeps weights in another file", "build the bundle again"),
    "no ONNX": (lambda: product()[:-7], "8.6", "no ONNX file", "build the bundle again"),
    "operator": (
        unknown_operator,
        "8.6",
        "an operator that this TensorRT does not have.*no_such, Foo",
        "build",
    ),
    "bias": (quantised_bias, "8.6", "bias is quantised to int32.*bias_dequantised", "quantise with"),
    "rows": (rows_of_int8, "8.6", "table of int8 rows", "rest: float16"),
    "float8": (float8, "8.6", "float8 needs .* 8.9", "fp16 or int8"),
    "float8 on Turing": (float8, "7.5", "float8 needs .* 8.9", "for this GPU"),
    "bfloat16": (lambda: product(ml_dtypes.bfloat16), "7.5", "bfloat16 needs .* 8.0", "fp16"),
    "float32": (product, "7.5", "no float32 products.*node product", "fp16.* leave it out of `keep`"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_graph_is_refused(case: str) -> None:
    make, target, words, cure = CASES[case]
    with pytest.raises(BuildError, match=f"(?s){words}.*Cure: .*{cure}") as refused:
        build(make(), [target])
    assert refused.value.code == "engine.build-failed"


@pytest.mark.parametrize(
    "line",
    [
        "[virtualMemoryBuffer.cpp::resizePhysical::154] Error Code 2: OutOfMemory (2147483648 bytes)",
        "Error Code 1: Cuda Runtime (out of memory)",
        "Could not find any implementation for node x due to insufficient memory",
    ],
)
def test_too_little_memory_is_said(line: str) -> None:
    """Messages of a TensorRT that runs on a GPU; this one was not run."""
    refused = refusal(line)
    assert refused.message == "there was not enough memory to build the engine"
    assert (refused.found, "workspace" in str(refused.cure)) == (line, True)


@pytest.mark.parametrize("target", ["8.7", "9.0", "11.0", "5.3", "86", "x"])
@pytest.mark.parametrize("others", [(), ("8.6",)])
def test_no_engine_is_built_for_a_gpu_that_the_builder_does_not_accept(
    target: str, others: tuple[str, ...]
) -> None:
    with pytest.raises(
        BuildError, match=r"not build engines for .*expected one of 7\.5, 8\.0, 8\.6"
    ) as refused:
        build(product(), [*others, target])
    assert (refused.value.code, refused.value.artefact) == ("engine.target", target)
    assert "promptray engine BUNDLE --backend tensorrt" in str(refused.value.cure)


def test_tensorrt_rtx_needs_targets_and_tensorrt_takes_none() -> None:
    with pytest.raises(BuildError, match="builds for named GPUs") as refused:
        build(product(), [])
    assert refused.value.code == "engine.target"
    with pytest.raises(BuildError, match="for the GPU that it runs on"):
        build_engine(
            product(), [profile()], Settings(), Flavour("tensorrt", "none", "10.3.0"), targets=["8.7"]
        )


@pytest.mark.parametrize(
    ("profiles", "words"),
    [
        ([], r"dynamic dimension that no profile gives.*input x"),
        ([Profile({})], r"dynamic dimension that no profile gives.*input x"),
        ([profile(), Profile({})], r"dynamic dimension that no profile gives.*input x"),
        ([profile(4, 1, 8)], r"do not fit the graph \(input x\)"),
        ([Profile({"x": ((1, 8), (1, 8), (1, 8))})], r"do not fit the graph.*tensor x"),
        ([Profile({**profile().shapes, "y": ((1, 1),) * 3})], r"do not fit the graph \(input y\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(profiles: list[Profile], words: str) -> None:
    with pytest.raises(BuildError, match=words) as refused:
        build(product(), profiles=profiles)
    assert refused.value.code == "engine.build-failed"


@pytest.mark.parametrize("most", [2**31, 2**70])
def test_shapes_beyond_all_counting_are_refused(most: int) -> None:
    with pytest.raises(BuildError, match=r"take more than TensorRT-RTX .* counts") as refused:
        build(product(), profiles=[profile(most=most)])
    error = refused.value
    assert (error.code, error.artefact, error.found) == ("engine.build-failed", "input x", str(most))
    assert "smaller sizes" in str(error.cure)


def test_tensorrt_8_6_is_given_older_graphs_alone() -> None:
    old = Flavour("tensorrt", "none", "8.6.1")
    for content, words in ((product(), "opset 17 or older"), (product(opset=17), "IR version 8 or older")):
        with pytest.raises(BuildError, match=words):
            build_engine(content, [profile()], Settings(), old)
