"""The sum that a graph takes of what it gives: no other answers, and none that is no number gets past."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from promptray.runtime.backends import HOST, OPENVINO, load_backend
from promptray.runtime.backends.onnx_total import TOTAL, can_total, total_shape, with_total
from promptray.runtime.bundle.manifest import Graph, TensorFacts
from promptray.runtime.deadline import Deadline
from promptray.runtime.errors import BundleError, ScoringError

HEIGHT, WIDTH, PROMPTS = 3, 5, 2
LARGEST = np.finfo(np.float32).max
HOSTS = pytest.mark.parametrize("backend", [HOST, OPENVINO])
Pixels = NDArray[np.float32]


def tensor(name: str, *dims: int | str, dtype: str = "float32") -> TensorFacts:
    return TensorFacts(name=name, dtype=dtype, dims=list(dims))  # type: ignore[arg-type]


PIXELS = tensor("pixels", "batch", 1, HEIGHT, WIDTH)
HALVES = tensor("halves", "batch", 1, HEIGHT, WIDTH)
ROOTS = tensor("roots", "batch", HEIGHT * WIDTH)
BANK = tensor("bank", "prompts", HEIGHT * WIDTH)


def image_graph() -> tuple[bytes, Graph]:
    """Return a graph that gives halves, and roots: of a negative pixel there is none."""
    nodes = [
        helper.make_node("Mul", ["pixels", "half"], ["halves"]),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("Sqrt", ["flat"], ["roots"]),
    ]
    half = helper.make_tensor("half", TensorProto.FLOAT, [], [0.5])
    return model([PIXELS], nodes, [HALVES, ROOTS], half), facts("image", [PIXELS], [HALVES, ROOTS])


def head_graph(dtype: str = "float32") -> tuple[bytes, Graph]:
    """Return a graph that gives a logit for each prompt."""
    logits = tensor("logits", "batch", "prompts", dtype=dtype)
    nodes = [
        helper.make_node("Transpose", ["bank"], ["turned"]),
        helper.make_node("MatMul", ["roots", "turned"], ["product"]),
        helper.make_node("Cast", ["product"], ["logits"], to=types([logits])[0]),
    ]
    return model([ROOTS, BANK], nodes, [logits]), facts("head", [ROOTS, BANK], [logits])


def types(tensors: list[TensorFacts]) -> list[int]:
    return [helper.np_dtype_to_tensor_dtype(np.dtype(each.dtype)) for each in tensors]


def model(
    inputs: list[TensorFacts],
    nodes: list[onnx.NodeProto],
    outputs: list[TensorFacts],
    *constants: onnx.TensorProto,
) -> bytes:
    values = [
        [
            helper.make_tensor_value_info(each.name, kind, each.dims)
            for each, kind in zip(tensors, types(tensors), strict=True)
        ]
        for tensors in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "test", *values, initializer=list(constants))
    return bytes(
        helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
        ).SerializeToString()
    )


def facts(role: str, inputs: list[TensorFacts], outputs: list[TensorFacts]) -> Graph:
    named: dict[str, Any] = {"head": "only"} if role == "head" else {}
    return Graph(
        role=role,  # type: ignore[arg-type]
        file=f"{role}.onnx",
        precision="fp32",
        opset=17,
        inputs=inputs,
        outputs=outputs,
        consumers=[HOST],
        **named,
    )


def pixels(images: int = 1) -> Pixels:
    rng = np.random.default_rng(images)
    return rng.uniform(1, 2, (images, 1, HEIGHT, WIDTH)).astype(np.float32)


def bank() -> Pixels:
    return np.random.default_rng(0).normal(size=(PROMPTS, HEIGHT * WIDTH)).astype(np.float32)


def logits(
    backend: str, given: Pixels, resident: Pixels | None = None, head: tuple[bytes, Graph] | None = None
) -> NDArray[Any]:
    """Score as a scorer does: one image in memory that stays, several in memory of their own."""
    engine = load_backend(backend, threads=1)
    (image, of_image), (content, of_head) = image_graph(), head or head_graph()
    first = engine.load(lambda: image, of_image).bind({})
    second = engine.load(lambda: content, of_head).bind({"bank": bank() if resident is None else resident})
    chain = engine.chain(first, [second])
    return chain.submit(given, Deadline(None, None)).result().heads[0]["logits"]


def expected(given: Pixels) -> Pixels:
    return np.sqrt(given.reshape(len(given), -1)) @ bank().T


def refused(backend: str, given: Pixels, **others: Any) -> str:
    with pytest.raises(ScoringError) as refusal:
        logits(backend, given, **others)
    assert refusal.value.code == "score.not-finite"
    return str(refusal.value.artefact)


@pytest.mark.parametrize("images", [1, 4])
def test_the_graph_gives_the_same_and_its_sum(images: int) -> None:
    content, graph = image_graph()
    summing = with_total(content, graph)
    onnx.checker.check_model(onnx.load_from_string(summing), full_check=True)
    session = ort.InferenceSession(summing, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert names == ["halves", "roots", TOTAL]
    found = dict(zip(names, session.run(None, {"pixels": pixels(images)}), strict=True))
    plain = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    for name, values in zip(names, plain.run(None, {"pixels": pixels(images)}), strict=False):
        np.testing.assert_array_equal(found[name], values)
    assert found[TOTAL].shape == total_shape(graph)
    whole = sum(np.sum(each, dtype=np.float64) for each in (pixels(images), found["halves"], found["roots"]))
    np.testing.assert_allclose(found[TOTAL].item(), whole, rtol=1e-5)


@HOSTS
@pytest.mark.parametrize("images", [1, 3])
def test_scores_are_those_of_the_graphs(backend: str, images: int) -> None:
    np.testing.assert_allclose(logits(backend, pixels(images)), expected(pixels(images)), rtol=1e-5)


@settings(max_examples=25)
@given(
    place=st.integers(0, HEIGHT * WIDTH - 1),
    images=st.sampled_from([1, 2]),
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
    backend=st.sampled_from([HOST, OPENVINO]),
)
def test_a_pixel_that_is_no_number_is_found_wherever_it_is(
    place: int, images: int, value: float, backend: str
) -> None:
    given = pixels(images)
    given[-1].reshape(-1)[place] = value
    assert refused(backend, given) == "pixels"


@HOSTS
@pytest.mark.parametrize("images", [1, 2])
def test_a_feature_that_is_no_number_is_found(backend: str, images: int) -> None:
    given = pixels(images)
    given[-1, 0, -1, -1] = -1.0  # its root is none
    assert refused(backend, given) == "image graph, output roots"


@HOSTS
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_logit_that_is_no_number_is_found(backend: str, images: int, dtype: str) -> None:
    resident = bank()
    resident[-1, -1] = LARGEST  # too large for a product with what is larger than 1
    found = refused(backend, 2 * pixels(images), resident=resident, head=head_graph(dtype))
    assert found == "head graph, output logits"


@HOSTS
@pytest.mark.parametrize("images", [1, 2])
def test_numbers_whose_sum_is_none_are_scored(backend: str, images: int) -> None:
    given = np.full_like(pixels(images), LARGEST)
    np.testing.assert_allclose(logits(backend, given), expected(given), rtol=1e-4)


@HOSTS
def test_a_call_after_a_refusal_is_scored(backend: str) -> None:
    engine = load_backend(backend, threads=1)
    (image, of_image), (head, of_head) = image_graph(), head_graph()
    first = engine.load(lambda: image, of_image).bind({})
    chain = engine.chain(first, [engine.load(lambda: head, of_head).bind({"bank": bank()})])
    with pytest.raises(ScoringError, match="output roots"):
        chain.submit(-pixels(), Deadline(None, None))
    outputs = chain.submit(pixels(), Deadline(None, None)).result()
    np.testing.assert_allclose(outputs.heads[0]["logits"], expected(pixels()), rtol=1e-5)


def test_what_is_no_array_of_float32_is_not_added_up() -> None:
    assert can_total(head_graph()[1])
    assert not can_total(head_graph("float16")[1])
    assert not can_total(text_graph()[1])


def text_graph() -> tuple[bytes, Graph]:
    """Return a graph that gives one number of a wording, and not even an array of it."""
    ids, bias = tensor("input_ids", 1, "tokens", dtype="int64"), tensor("bias")
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["numbers"], ["bias"], keepdims=0),
    ]
    return model([ids], nodes, [bias]), facts("text", [ids], [bias])


@HOSTS
def test_a_number_that_is_no_array_is_given(backend: str) -> None:
    content, graph = text_graph()
    bound = load_backend(backend, threads=1).load(lambda: content, graph).bind({})
    assert bound.run({"input_ids": np.array([[3, 4]])})["bias"] == 7


@HOSTS
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_file_with_an_output_of_that_name_is_refused(backend: str, dtype: str) -> None:
    """Whether or not a sum is added: what the file gives is not known to be one."""
    content, graph = head_graph(dtype)
    own = onnx.load_from_string(content)
    own.graph.node.append(helper.make_node("ReduceMax", ["roots"], [TOTAL]))
    own.graph.output.append(helper.make_tensor_value_info(TOTAL, TensorProto.FLOAT, [1, 1]))
    with pytest.raises(ScoringError) as refusal:
        load_backend(backend, threads=1).load(own.SerializeToString, graph)
    assert refusal.value.code == "backend.failed"


@HOSTS
def test_a_file_cut_where_more_would_be_swallowed_is_refused(backend: str) -> None:
    content, graph = image_graph()
    cut = content + bytes([13 << 3 | 1]) + bytes(5)  # of eight
    with pytest.raises(BundleError) as refusal:
        load_backend(backend, threads=1).load(lambda: cut, graph)
    assert refusal.value.code == "bundle.format"
