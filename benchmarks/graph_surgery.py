"""Other forms of exported graphs that compute the same: what `benchmarks.graph_forms` compares.

Each takes a graph's bytes and returns another's. One that finds nothing to change refuses with
:class:`NoSuchForm`, since the graphs of other families have other parts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from promptray.calibrate.quantise.graph import Graph
from promptray.runtime.bundle.image_rules import Normalise

Array = NDArray[Any]
_OF_ONNX_RUNTIME = "com.microsoft"


class NoSuchForm(Exception):
    """The graph has no part that this form changes."""


def operators(content: bytes) -> list[str]:
    """Return the operators outside the ONNX standard."""
    return sorted({node.op_type for node in onnx.load_from_string(content).graph.node if node.domain})


def rewritten(content: bytes) -> bytes:
    """Return what ONNX Runtime makes of a graph on this machine when it opens it."""
    with tempfile.TemporaryDirectory() as folder:
        options, path = ort.SessionOptions(), Path(folder) / "rewritten.onnx"
        options.log_severity_level, options.optimized_model_filepath = 4, str(path)
        ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return path.read_bytes()


def with_shapes(content: bytes) -> bytes:
    """Note the shape of every tensor on the way, in the names of the inputs' dimensions."""
    from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

    try:
        model = SymbolicShapeInference.infer_shapes(onnx.load_from_string(content))
    except TypeError as error:  # its own: it goes on with a shape it did not find
        raise NoSuchForm("ONNX Runtime's tool does not find all shapes") from error
    return bytes(model.SerializeToString())


def fused_by_tool(content: bytes, kind: str) -> bytes:
    """Let ONNX Runtime's own tool fuse what it knows of a kind of model, told its heads and width."""
    from onnxruntime.transformers.optimizer import optimize_model

    graph = Graph(content)
    sizes = {(block.heads, len(graph.constants[block.weight])) for block in _blocks(graph)} or {(0, 0)}
    ((heads, width),) = sizes
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        path.write_bytes(content)
        made = optimize_model(str(path), kind, num_heads=heads, hidden_size=width, opt_level=0)
        return bytes(made.model.SerializeToString())


class _Block(NamedTuple):
    """Attention of one block: normed rows, weight, bias, their product, the node that ends it, heads."""

    rows: str
    weight: str
    bias: str
    product: str
    end: NodeProto
    heads: int


def _packed(block: _Block, out: str) -> list[NodeProto]:
    inputs = [block.rows, block.weight, block.bias]
    return [_node("Attention", inputs, out, domain=_OF_ONNX_RUNTIME, num_heads=block.heads)]


def _split(block: _Block, out: str) -> list[NodeProto]:
    parts, heads = _parts(block, out), block.heads
    return [parts, _node("MultiHeadAttention", parts.output, out, domain=_OF_ONNX_RUNTIME, num_heads=heads)]


def _standard(block: _Block, out: str) -> list[NodeProto]:
    parts, heads = _parts(block, out), block.heads
    return [parts, _node("Attention", parts.output, out, q_num_heads=heads, kv_num_heads=heads)]


def _parts(block: _Block, out: str) -> NodeProto:
    return helper.make_node(
        "Split", [block.product], [f"{out}.{part}" for part in "qkv"], axis=2, num_outputs=3
    )


#: One operator for a block's attention: ONNX Runtime's with the projection inside, its other one, ONNX's own.
ATTENTION: dict[str, Callable[[_Block, str], list[NodeProto]]] = {
    "with its projection": _packed,
    "after its projection": _split,
    "opset 23": _standard,
}


def with_attention(content: bytes, kind: str) -> bytes:
    """Make each block's attention one operator of :data:`ATTENTION`."""
    graph = Graph(content)
    made = {block.end.output[0]: ATTENTION[kind](block, block.end.output[0]) for block in _blocks(graph)}
    if not made:
        raise NoSuchForm("no attention whose queries, keys and values are one product")
    return _replaced(graph, made, graph.constants, opset=23 if kind == "opset 23" else None)


def _blocks(graph: Graph) -> Iterator[_Block]:
    sources = {output: node for node in graph.nodes for output in node.output}
    for softmax in (node for node in graph.nodes if node.op_type == "Softmax"):
        above, name = [], softmax.input[0]
        while name in sources and sources[name].op_type != "LayerNormalization":
            above.append(sources[name])
            name = above[-1].input[0]
        shapes = [
            graph.constants.get(node.input[1], np.empty(0)) for node in above if node.op_type == "Reshape"
        ]
        in_heads = [shape for shape in shapes if len(shape) == 5]  # images, rows, 3, heads, width
        if in_heads and [node.op_type for node in above[-2:]] == ["Add", "MatMul"]:
            add, product = above[-2:]
            (read,) = graph.consumers[softmax.output[0]]
            (turned,) = graph.consumers[read.output[0]]
            (end,) = graph.consumers[turned.output[0]]
            names = product.input[0], product.input[1], add.input[1], add.output[0]
            yield _Block(*names, end, int(in_heads[-1][3]))


def with_three_planes(content: bytes) -> bytes:
    """Let the first convolution read three equal planes, as that of the published weights does.

    Each has a third of the one plane's kernel: other numbers than the published ones, but the same work.
    """
    graph, first = _first_convolution(content)
    kernel = graph.constants[first.input[1]]
    if kernel.shape[1] != 1:
        raise NoSuchForm("the first convolution reads three planes already")
    graph.model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3
    three = {first.input[1]: np.repeat(kernel / np.float32(3), 3, axis=1)}
    return _replaced(graph, {}, graph.constants | three)


def for_levels(content: bytes, rule: Normalise) -> bytes:
    """Take the 8-bit picture itself, with mean and deviation in the first convolution.

    Parameters
    ----------
    content : bytes
        An image graph.
    rule : Normalise
        How its pixels were made.
    """
    graph, first = _first_convolution(content)
    if any(value for item in first.attribute if item.name == "pads" for value in item.ints):
        raise NoSuchForm("the first convolution pads, with what is the mean's grey")
    kernel = graph.constants[first.input[1]].astype(np.float64)
    mean, deviation = (np.array(each).reshape(-1, 1, 1) for each in (rule.mean, rule.std))
    scaled = kernel / deviation
    bias = -(scaled * mean).sum(axis=(1, 2, 3))
    if len(first.input) > 2:  # CLIP's has none
        bias += graph.constants[first.input[2]]
    one = scaled.sum(axis=1, keepdims=True) / 255
    made, (pixels,) = NodeProto(), graph.model.graph.input
    made.CopyFrom(first)
    made.input[:] = ["grey.pixels", "grey.kernel", "grey.bias"]
    pixels.type.tensor_type.shape.dim[1].dim_value = 1
    pixels.type.tensor_type.elem_type = TensorProto.UINT8
    cast = _node("Cast", ["pixels"], "grey.pixels", to=TensorProto.FLOAT)
    folded = {"grey.kernel": one.astype(np.float32), "grey.bias": bias.astype(np.float32)}
    return _replaced(graph, {first.output[0]: [cast, made]}, graph.constants | folded)


def _first_convolution(content: bytes) -> tuple[Graph, NodeProto]:
    graph = Graph(content)
    (first,) = (node for node in graph.consumers["pixels"] if node.op_type == "Conv")
    return graph, first


def joined(image: bytes, head: bytes, batches: int) -> bytes:
    """Put the image graph, and the head's once for each batch of its bank, into one graph.

    Inputs are ``pixels`` and the bank's tensors, outputs the head's, each with the batch's number behind it.
    """
    whole, one = onnx.load_from_string(image), onnx.load_from_string(head)
    features = {value.name for value in whole.graph.output}
    kept = dict.fromkeys(features | {""})
    del whole.graph.output[:], whole.graph.value_info[:]
    for tensor in one.graph.initializer:
        whole.graph.initializer.add().CopyFrom(tensor)
        whole.graph.initializer[-1].name = kept[tensor.name] = f"head.{tensor.name}"
    for number in range(batches):

        def named(name: str, number: int = number) -> str:
            return kept[name] or name if name in kept else f"{name}.{number}"

        for node in one.graph.node:
            added = whole.graph.node.add()
            added.CopyFrom(node)
            added.input[:], added.output[:] = map(named, node.input), map(named, node.output)
            added.name = f"{node.name}.{number}"
        for values, own in ((whole.graph.input, one.graph.input), (whole.graph.output, one.graph.output)):
            for value in own:
                if value.name not in features:
                    values.add().CopyFrom(value)
                    values[-1].name = named(value.name)
    return bytes(whole.SerializeToString())


def values_projected(content: bytes) -> bytes:
    """Take values from the bank that went through the head's output projection (:func:`projected_bank`).

    Each attention head's values are then as wide as the model. Queries of prompts read the image's values
    and are projected as before.
    """
    graph, made = Graph(content), {}
    for name, read, both, product in _projections(graph):
        out = product.output[0]
        made[out] = [
            _node("Reshape", [both.input[0], "flat"], f"{out}.1"),
            _node("MatMul", [f"{out}.1", product.input[1]], f"{out}.2"),
            _node("Transpose", [read.input[0]], f"{out}.3", perm=[0, 2, 1, 3]),
            _node("Reshape", [f"{out}.3", "flat"], f"{out}.4"),
            _node("MatMul", [f"{out}.4", name], f"{out}.5"),
            _node("Transpose", [f"{out}.5"], f"{out}.6", perm=[1, 0, 2]),
            _node("Concat", [f"{out}.2", f"{out}.6"], out, axis=1),
        ]
    if not made:
        raise NoSuchForm("the bank has no values of an attention")
    for value in graph.model.graph.input:
        if value.name.startswith("values."):
            value.type.tensor_type.ClearField("shape")
    return _replaced(graph, made, graph.constants | {"flat": np.array([0, 0, -1])})


def projected_bank(content: bytes, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Return a head's inputs with their values (N, heads, rows, d) projected: (N, heads * rows, width)."""
    graph, found = Graph(content), dict(tensors)
    for name, _, _, product in _projections(graph):
        values, weight = tensors[name], graph.constants[product.input[1]]
        prompts, heads, rows, width = values.shape
        wide = values @ weight.reshape(heads, width, -1)
        found[name] = wide.reshape(prompts, heads * rows, -1)
    return found


def _projections(graph: Graph) -> Iterator[tuple[str, NodeProto, NodeProto, NodeProto]]:
    """Yield the name of each layer's values, and what reads them, joins both directions and projects."""
    for name in (value.name for value in graph.model.graph.input if value.name.startswith("values.")):
        path = graph.consumers[name]
        for _ in ("turned", "both directions", "heads joined", "projected"):
            path = [*path, *graph.consumers[path[-1].output[0]]]
        yield name, path[0], path[2], path[4]


def _node(operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(operator, list(inputs), [output], output, **attributes)


def _replaced(
    graph: Graph, made: Mapping[str, list[NodeProto]], constants: dict[str, Array], opset: int | None = None
) -> bytes:
    """Put other nodes in the place of those that give a tensor; leave out what nothing needs any more."""
    nodes = [each for node in graph.nodes for each in made.get(node.output[0], [node])]
    needed, kept = set(graph.outputs), []
    for node in reversed(nodes):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    graph.replace(reversed(kept), constants)
    versions = graph.model.opset_import
    versions[0].version = opset or versions[0].version
    versions.append(helper.make_opsetid(_OF_ONNX_RUNTIME, 1))
    return graph.to_bytes()
