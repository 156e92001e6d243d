"""Constants that are no weights of a quantised product, stored in less.

Tables that tokens are looked up in: float16, or int8 with a scale for each row. A row is looked up before it
is scaled, so nothing of the table's size is ever computed. Tables that are added whole, as the positions of
image patches are: float16. Weights of products that a scheme leaves in float32: int8 with a scale for each
channel. What depends on constants alone a backend computes once, when it loads the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from promptray.calibrate.quantise.graph import Graph
from promptray.calibrate.quantise.layers import LEAST_WEIGHTS, Layer
from promptray.calibrate.quantise.qdq import INT8, quantise_weight
from promptray.calibrate.quantise.scheme import Tables


def store_tables(graph: Graph, stored: Tables) -> dict[str, Tables]:
    """Store every embedding table of a graph in another type; return how those changed are stored, by name.

    Parameters
    ----------
    graph : Graph
        Changed. What is looked up changes by at most half a step: in float16 2**-11 of each number, in int8
        1/254 of the greatest of each row. What is added whole changes as in float16.
    stored : {'float32', 'float16', 'int8-rows'}
        How tables are stored that tokens are looked up in; those that are added become float16 with either.
    """
    if stored == "float32":
        return {}
    constants = dict(graph.constants)
    changed: dict[str, Tables] = {}
    nodes: list[NodeProto] = []
    for node in graph.nodes:
        table = _table(node, graph)
        if table is None:
            for position in _added(node, graph):
                source = node.input[position]
                changed[source] = "float16"
                low, node.input[position] = f"{source}.float16", f"{source}.float32"
                constants[low] = graph.constants[source].astype(np.float16)
                nodes.append(_to_float(low, node.input[position]))
            nodes.append(node)
            continue
        source, indices, output = node.input[0], node.input[1], node.output[0]
        name = f"{source}.{stored}"
        changed[source] = stored
        nodes.append(_node("Gather", [name, indices], f"{output}.low"))
        if stored == "float16":
            constants[name] = table.astype(np.float16)
            nodes.append(_to_float(f"{output}.low", output))
            continue
        constants[name], scales = quantise_weight(table, 0, INT8)
        constants[f"{name}.scale"] = scales[:, None]
        nodes += [
            _to_float(f"{output}.low", f"{output}.steps"),
            _node("Gather", [f"{name}.scale", indices], f"{output}.scale"),
            _node("Mul", [f"{output}.steps", f"{output}.scale"], output),
        ]
    graph.replace(nodes, constants)
    return changed


def _table(node: NodeProto, graph: Graph) -> NDArray[Any] | None:
    """Return the table that a node looks rows up in, where it alone reads it."""
    table = graph.constants.get(node.input[0]) if node.op_type == "Gather" else None
    if table is None or table.dtype != np.float32 or table.ndim != 2 or table.size < LEAST_WEIGHTS:
        return None
    rows = all(item.i == 0 for item in node.attribute if item.name == "axis")
    alone = len(graph.consumers[node.input[0]]) == 1  # or it would have to be stored twice
    return table if rows and alone and node.input[1] not in graph.constants else None


def _added(node: NodeProto, graph: Graph) -> list[int]:
    """Return which inputs of a node are tables that it adds to something: several rows, read by it alone."""
    found = []
    for position, name in enumerate(node.input if node.op_type == "Add" else ()):
        table = graph.constants.get(name)
        if table is None or table.dtype != np.float32 or table.size < LEAST_WEIGHTS:
            continue
        rows = sum(side > 1 for side in table.shape) > 1  # a bias has one
        fits = np.abs(table).max() <= np.finfo(np.float16).max
        if rows and fits and len(graph.consumers[name]) == 1:
            found.append(position)
    return found


def store_weights(graph: Graph, layers: Sequence[Layer]) -> None:
    """Store weights as int8 with a scale for each output channel; the products stay float32.

    For backends that compute at load what depends on constants alone, as ONNX Runtime does: an operator
    that dequantises is left in place there and would keep convolutions from their fastest kernels, so this is
    a cast and a product.

    Parameters
    ----------
    graph : Graph
        Changed. A weight changes by at most half a step, 1/254 of the greatest of its channel.
    layers : sequence of Layer
    """
    constants, by_node = dict(graph.constants), {layer.node.name: layer for layer in layers}
    nodes: list[NodeProto] = []
    for node in graph.nodes:
        if layer := by_node.get(node.name):
            name, axis = f"{layer.weight_name}.int8", layer.channel_axis
            constants[name], scales = quantise_weight(layer.weight, axis, INT8)
            shape = [-1 if number == axis else 1 for number in range(layer.weight.ndim)]
            constants[f"{name}.scale"] = scales.reshape(shape)
            low, node.input[1] = f"{node.name}.steps", f"{node.name}.weight"
            nodes += [_to_float(name, low), _node("Mul", [low, f"{name}.scale"], node.input[1])]
        nodes.append(node)
    graph.replace(nodes, constants)


def _node(operator: str, inputs: list[str], output: str) -> NodeProto:
    return helper.make_node(operator, inputs, [output], f"{output}.{operator.lower()}")


def _to_float(tensor: str, output: str) -> NodeProto:
    return helper.make_node("Cast", [tensor], [output], f"{output}.cast", to=TensorProto.FLOAT)
