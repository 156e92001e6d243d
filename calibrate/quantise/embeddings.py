"""Tables that tokens are looked up in, stored in less: float16, or int8 with a scale for each row.

A row is looked up before it is scaled, so nothing of the table's size is ever computed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from promptray.calibrate.quantise.graph import Graph
from promptray.calibrate.quantise.layers import LEAST_WEIGHTS
from promptray.calibrate.quantise.qdq import INT8, quantise_weight
from promptray.calibrate.quantise.scheme import Tables


def store_tables(graph: Graph, stored: Tables) -> list[str]:
    """Store every embedding table of a graph in another type; return the names of those changed.

    Parameters
    ----------
    graph : Graph
        Changed. What is looked up changes by at most half a step: in float16 2**-11 of each number, in int8
        1/254 of the greatest of each row.
    stored : {'float32', 'float16', 'int8-rows'}
    """
    if stored == "float32":
        return []
    constants = dict(graph.constants)
    changed: list[str] = []
    nodes: list[NodeProto] = []
    for node in graph.nodes:
        table = _table(node, graph)
        if table is None:
            nodes.append(node)
            continue
        source, indices, output = node.input[0], node.input[1], node.output[0]
        name = f"{source}.{stored}"
        changed.append(source)
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


def _node(operator: str, inputs: list[str], output: str) -> NodeProto:
    return helper.make_node(operator, inputs, [output], f"{output}.{operator.lower()}")


def _to_float(tensor: str, output: str) -> NodeProto:
    return helper.make_node("Cast", [tensor], [output], f"{output}.cast", to=TensorProto.FLOAT)
