"""What TensorRT-RTX's compiler makes of five families' graphs: types, and attention in one kernel.

Not run: another TensorRT, and any engine. The layers are those that the builder lists in its log.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import pytest

from benchmarks.rtx_layers import (
    TARGETS,
    asked_float32,
    build,
    quantised_products,
    typed,
    unasked_float32,
)
from promptray.calibrate.quantise import Quantised
from promptray.export.families.base import Side
from promptray.export.onnx_graph import export_graph
from promptray.export.tensorrt import Layer
from promptray.export.tensorrt.layers import Tensor
from tests.export.tensorrt.graphs import sides_of, small_model
from tests.rtx import needs_rtx

pytestmark = needs_rtx

#: Graph -> attentions in one kernel, of its tower: all, 64 wide, but those of CLIP's text side, which are
#: causal. Those of decoders are not 64 wide: test_rtx_layers.py reports them.
ATTENTIONS: dict[str, int | None] = {
    "carzero image": 4,
    "carzero text": 4,
    "carzero head findings": None,
    "asg image": 2,
    "asg text": 1,
    "asg head prompts": 0,
    "asg head tags": None,
    "biomedclip image": 2,
    "biomedclip text": 2,
    "biomedclip head findings": 0,
    "chexzero image": 3,
    "chexzero text": 0,
    "chexzero head findings": 0,
    "convnext image": 0,
    "convnext head classes": 0,
}
#: Heads of a single product with the bank, in which nothing is a weight.
WITHOUT_WEIGHTS = {
    "asg head prompts", "biomedclip head findings", "chexzero head findings", "convnext head classes",
}  # fmt: skip
TYPES = {"fp16": "Half", "int8": "Int8", "fp8": "FP8"}
CASES = [
    (graph, scheme, target)
    for graph in ATTENTIONS
    for scheme, targets in TARGETS.items()
    for target in targets
    if scheme == "fp16" or graph not in WITHOUT_WEIGHTS
]
Make = Callable[[str, str], tuple[Side, Quantised]]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """``make(graph, scheme)``."""

    @lru_cache(None)
    def sides(family: str) -> dict[str, Side]:
        return sides_of(small_model(family, tmp_path_factory.mktemp(family)))

    @lru_cache(None)
    def exported(graph: str) -> tuple[Side, bytes]:
        family, _, role = graph.partition(" ")
        side = sides(family)[role]
        return side, export_graph(side, graph)

    @lru_cache(None)
    def made(graph: str, scheme: str) -> tuple[Side, Quantised]:
        side, content = exported(graph)
        return side, typed(content, side, scheme)

    return made


@pytest.mark.parametrize(("graph", "scheme", "target"), CASES)
def test_tensorrt_rtx_fuses_attention_and_computes_in_the_types_of_the_graph(
    make: Make, graph: str, scheme: str, target: str
) -> None:
    side, quantised = make(graph, scheme)
    built = build(quantised.content, side, target)
    assert built.targets == (target,)
    check_types(built.layers, side, quantised, scheme)
    if ATTENTIONS[graph] is not None:
        assert sum(layer.is_attention for layer in built.layers) == ATTENTIONS[graph]


def check_types(layers: list[Layer], side: Side, made: Quantised, scheme: str) -> None:
    """Hold the layers of an engine to the types of its graph."""
    asked, quantised = asked_float32(made, side), quantised_products(made.content)
    assert bool(quantised) == (scheme != "fp16")
    assert unasked_float32(layers, asked, quantised) == []
    if scheme == "fp8":  # no GPU has float8 convolutions: RTX computes them in float16, of float8 numbers
        quantised = {name: operator for name, operator in quantised.items() if operator != "Conv"}
    low = (TYPES[scheme],) * 2
    assert set(quantised) <= {node for layer in layers if layer.operands == low for node in layer.nodes}
    others = [layer for layer in layers if layer.is_product and layer.operands != low]
    assert {layer.operands for layer in others if not asked & set(layer.nodes)} <= {("Half", "Half")}


def test_float32_that_nobody_asked_for_is_found() -> None:
    one = (Tensor("between", "Float"),)
    product = Layer(name="p", kind="gemm", inputs=one, constants=one, outputs=one, nodes=("node_MatMul",))
    half = (Tensor("logits", "Half"),)
    reader = Layer(name="r", kind="kgen", inputs=one, constants=(), outputs=half, nodes=())
    assert unasked_float32([product, reader], set(), set()) == ["between of p", "p multiplies float32"]
    assert unasked_float32([product, reader], {"node_MatMul"}, set()) == []


def test_an_engine_of_a_float32_graph_is_float32_throughout(make: Make) -> None:
    side, _ = make("carzero image", "fp16")
    built = build(export_graph(side, "image"), side, "8.6")
    assert {layer.operands for layer in built.layers if layer.is_product} == {("Float", "Float")}
    assert unasked_float32(built.layers, set(), set())
