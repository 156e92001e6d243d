"""Type a graph float16, but for islands of float32 around what leaves float16's range on real inputs.

`onnxruntime.transformers.float16` blocks nodes one by one: it casts to float16 after each blocked node, so a
value that overflows does so between two nodes that were kept high. Here a tensor is kept high: its producer
and all its readers are float32, and values cross only where they fit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from promptray.calibrate.quantise.graph import Graph
from promptray.calibrate.quantise.layers import group_of
from promptray.calibrate.quantise.observe import Feeds, observe

GREATEST, LEAST_NORMAL = 65504.0, 2.0**-14
#: Operators that square or exponentiate inside, where no tensor shows it.
_WIDE = frozenset({"ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "Exp", "Pow"})
_CASTS = {np.dtype(np.float16): TensorProto.FLOAT16, np.dtype(np.float32): TensorProto.FLOAT}


def type_float16(
    graph: Graph, feeds: Feeds, *, headroom: float, keep: Collection[str] = ()
) -> dict[str, str]:
    """Type a graph float16; inputs and outputs stay float32.

    Parameters
    ----------
    graph : Graph
        Changed.
    feeds : sequence of mapping
        Real inputs; the range of every tensor is taken from them.
    headroom : float
        A tensor stays high when this many times its greatest magnitude overflows.
    keep : collection of str
        Layers and groups that stay high.

    Returns
    -------
    dict of str to str
        Nodes that stayed float32, each with its reason.
    """
    floats = graph.float_tensors
    magnitudes = _magnitudes(graph, floats, feeds)
    high: dict[str, str] = {}
    for node in graph.nodes:
        reason = _reason(node, floats, magnitudes, graph, headroom, keep)
        if reason:
            high[node.name] = reason
    _retype(graph, floats, high)
    return high


def _magnitudes(graph: Graph, floats: set[str], feeds: Feeds) -> dict[str, float]:
    inside = [name for node in graph.nodes for name in node.output if name in floats]
    found: dict[str, float] = {}
    for name, values in observe(graph, [*inside, *(value.name for value in graph.model.graph.input)], feeds):
        if values.dtype == np.float32 and values.size:
            found[name] = max(found.get(name, 0.0), float(np.abs(values).max()))
    return found


def _reason(
    node: NodeProto,
    floats: set[str],
    magnitudes: Mapping[str, float],
    graph: Graph,
    headroom: float,
    keep: Collection[str],
) -> str | None:
    name = graph.weight_names.get(node.name, node.name)
    if name in keep or group_of(name) in keep:
        return "the scheme keeps it"
    if node.op_type in _WIDE:
        return f"{node.op_type} needs more range inside than its tensors show"
    # Scales are float16 numbers however small (`qdq.scale_of`); TensorRT wants both of a product of one type.
    scales = node.input[1:2] if node.op_type in ("QuantizeLinear", "DequantizeLinear") else ()
    for tensor in (*node.input, *node.output):
        if tensor not in floats or tensor in scales:
            continue
        constant = graph.constants.get(tensor)
        if constant is None:
            greatest = magnitudes.get(tensor, 0.0)
            limit = GREATEST / headroom
        else:
            greatest = float(np.abs(constant).max(initial=0.0))
            limit = GREATEST
        if not greatest <= limit:
            return f"{tensor} reaches {greatest:.3g}"
        if 0 < greatest < LEAST_NORMAL:
            return f"{tensor} is never above {greatest:.3g}"
    return None


def _retype(graph: Graph, floats: set[str], high: Mapping[str, str]) -> None:
    """Give every node its type and put casts where a tensor crosses from one type to the other."""
    half: np.dtype[Any] = np.dtype(np.float16)
    single: np.dtype[Any] = np.dtype(np.float32)
    constants: dict[str, NDArray[Any]] = {}
    types = {value.name: single for value in graph.model.graph.input if value.name in floats}
    casts: set[str] = set()
    nodes: list[NodeProto] = []
    low = "{}.float16".format
    outputs = graph.outputs & floats

    def crossed(tensor: str, wanted: np.dtype[Any]) -> str:
        """Return the name that a tensor has in a type, with its cast before it."""
        if tensor in graph.constants:
            name = low(tensor) if wanted == half else tensor
            constants[name] = graph.constants[tensor].astype(wanted)
            return name
        own = low(tensor) if types[tensor] == half else tensor
        name = low(tensor) if wanted == half else tensor
        if own != name and name not in casts:
            casts.add(name)
            nodes.append(helper.make_node("Cast", [own], [name], f"{name}.cast", to=_CASTS[wanted]))
        return name

    for node in graph.nodes:
        casting = node.op_type == "Cast" and node.output[0] in floats
        wanted = single if node.name in high else half
        inputs = []
        for tensor in node.input:
            if tensor in floats:
                inputs.append(crossed(tensor, wanted))
            else:
                if tensor in graph.constants:
                    constants[tensor] = graph.constants[tensor]
                inputs.append(tensor)
        changed = NodeProto()
        changed.CopyFrom(node)
        changed.input[:] = inputs
        for position, tensor in enumerate(node.output):
            if tensor in floats:
                types[tensor] = wanted
                changed.output[position] = low(tensor) if wanted == half else tensor
        if casting:
            next(item for item in changed.attribute if item.name == "to").i = _CASTS[wanted]
        nodes.append(changed)
    for tensor in sorted(outputs):
        crossed(tensor, single)
    graph.replace(nodes, constants)
