"""The opset-17 variant of an exported graph, for TensorRT 8.6: the same numbers without newer operators.

Between opsets 17 and 20 little changed that the exporter and the quantiser write: reductions took their axes
as an input, Split counts its outputs, Gelu became an operator. All else must be valid as it stands, and is
checked against the schemas of opset 17: what is not is refused, never passed on. ONNX's own version converter
refuses Gelu and float16 graphs, so it is not used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from promptray.runtime.errors import BuildError

OPSET, IR_VERSION = 17, 8


def to_opset_17(content: bytes) -> bytes:
    """Return the graph in opset 17 and IR version 8; the same bytes every time.

    Parameters
    ----------
    content : bytes
        An exported or quantised graph: opset 20, standard operators, weights inside.

    Raises
    ------
    BuildError
        ``export.failed``, naming the node that opset 17 cannot express.
    """
    model = onnx.load_from_string(content)
    types = _types(model)
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    arrays |= {
        node.output[0]: item.t
        for node in model.graph.node
        for item in node.attribute
        if node.op_type == "Constant" and item.name == "value"
    }
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        rewrite = _REWRITES.get(node.op_type)
        if rewrite is None and node.op_type.startswith("Reduce"):
            rewrite = _reduction
        nodes += [node] if rewrite is None else rewrite(node, arrays, types)
    made = helper.make_model(
        helper.make_graph(
            nodes,
            model.graph.name,
            model.graph.input,
            model.graph.output,
            _read(model.graph.initializer, nodes, model),
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name=model.producer_name,
    )
    _require_valid(made, _types(made))
    return bytes(made.SerializeToString(deterministic=True))


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element type of every tensor whose type is known."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    found = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _read(initialisers: Any, nodes: list[NodeProto], model: onnx.ModelProto) -> list[TensorProto]:
    """Leave out constants that became attributes."""
    read = {name for node in nodes for name in node.input} | {value.name for value in model.graph.output}
    return [tensor for tensor in initialisers if tensor.name in read]


def _reduction(
    node: NodeProto, arrays: Mapping[str, TensorProto], types: Mapping[str, int]
) -> list[NodeProto]:
    """Write constant axes as the attribute they were; ReduceSum took them as an input before."""
    if "axes" not in onnx.defs.get_schema(node.op_type, OPSET).attributes or len(node.input) < 2:
        return [node]
    tensor = arrays.get(node.input[1])
    axes = [] if tensor is None else numpy_helper.to_array(tensor).astype(int).tolist()
    if not axes:
        raise _inexpressible(node, "its axes are computed, or none")
    made = _without(node, "noop_with_empty_axes")
    del made.input[1:]
    made.attribute.append(helper.make_attribute("axes", axes))
    return [made]


def _split(node: NodeProto, arrays: Mapping[str, TensorProto], types: Mapping[str, int]) -> list[NodeProto]:
    """Leave the number of outputs to be counted; the exporter writes it where the parts are equal."""
    return [_without(node, "num_outputs")]


def _without(node: NodeProto, attribute: str) -> NodeProto:
    made = NodeProto()
    made.CopyFrom(node)
    kept = [item for item in node.attribute if item.name != attribute]
    del made.attribute[:]
    made.attribute.extend(kept)
    return made


def _gelu(node: NodeProto, arrays: Mapping[str, TensorProto], types: Mapping[str, int]) -> list[NodeProto]:
    """Write the activation as it is defined, in float32: a float16 sum beside 1 would lose its tail."""
    (source,), (target,) = node.input, node.output
    low = types.get(source) == TensorProto.FLOAT16
    tanh = any(item.name == "approximate" and item.s == b"tanh" for item in node.attribute)
    prefix = node.name or target
    made: list[NodeProto] = []

    def constant(name: str, value: float) -> str:
        array = numpy_helper.from_array(np.asarray(value, np.float32), f"{prefix}.{name}")
        return step("Constant", [], name, value=array)

    def step(operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        output = f"{prefix}.{name}"
        made.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    x = step("Cast", [source], "wide", to=TensorProto.FLOAT) if low else source
    if tanh:
        cube = step("Mul", [step("Mul", [x, x], "square"), x], "cube")
        inner = step("Add", [x, step("Mul", [cube, constant("cubic", 0.044715)], "part")], "inner")
        bent = step("Tanh", [step("Mul", [inner, constant("slope", math.sqrt(2 / math.pi))], "bent")], "tanh")
    else:
        bent = step("Erf", [step("Mul", [x, constant("slope", math.sqrt(0.5))], "bent")], "erf")
    share = step("Mul", [step("Add", [bent, constant("one", 1.0)], "sum"), constant("half", 0.5)], "share")
    whole = step("Mul", [x, share], "product")
    if low:
        whole = step("Cast", [whole], "narrow", to=TensorProto.FLOAT16)
    made[-1].output[0] = target
    return made


_REWRITES: dict[str, Callable[..., list[NodeProto]]] = {"Gelu": _gelu, "Split": _split}


def _require_valid(model: onnx.ModelProto, types: Mapping[str, int]) -> None:
    """Refuse a node whose operator, attributes, inputs or types opset 17 does not know."""
    for node in model.graph.node:
        try:
            schema = onnx.defs.get_schema(node.op_type, OPSET, node.domain)
        except onnx.defs.SchemaError:
            raise _inexpressible(node, f"opset {OPSET} has no such operator") from None
        unknown = {item.name for item in node.attribute} - {*schema.attributes}
        if unknown or not schema.min_input <= len(node.input) <= schema.max_input:
            what = ", ".join(sorted(unknown)) or f"{len(node.input)} inputs"
            raise _inexpressible(node, f"opset {OPSET} has no {what}")
        for tensors, formal in ((node.input, schema.inputs), (node.output, schema.outputs)):
            for position, name in enumerate(tensors):
                known = formal[min(position, len(formal) - 1)].types
                kind = TensorProto.DataType.Name(types.get(name, 0)).lower()
                if name in types and f"tensor({kind})" not in known:
                    raise _inexpressible(node, f"opset {OPSET} takes no {kind} there")


def _inexpressible(node: NodeProto, why: str) -> BuildError:
    return BuildError(
        "export.failed",
        f"the graph has no opset-{OPSET} form, which TensorRT 8.6 needs: {why}",
        artefact=f"{node.op_type} node {node.name or node.output[0]}",
        cure="leave tensorrt.opset_17 out: TensorRT 10 and later read opset 20",
    )
