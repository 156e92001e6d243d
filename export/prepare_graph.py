"""The graph that takes stored values to the network's pixels on a device (see `runtime.prepare_graph`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from promptray.export.model_facts import OPSET
from promptray.runtime.bundle.image_rules import Preprocessing
from promptray.runtime.bundle.validate_preprocessing import prepare_fault

_IR_VERSION = 10
#: Filters that Pillow rounds to 8 bits after each axis, halves up; OpenCV's are rounded once, halves to even.
_PILLOW = ("bilinear", "bicubic", "lanczos")
_SPLIT = 2048


def prepare_graph(spec: Preprocessing) -> bytes:
    """Return the graph of a bundle's preprocessing, ONNX, float32; the same bytes every time.

    Its inputs are ``codes`` int32 (rows, columns), ``table`` float32 (values), ``down`` float32 (height,
    rows), ``across`` float32 (columns, width) and ``border`` float32 (height, width); its output ``pixels``
    is float32 (1, channels, height, width).

    Raises
    ------
    ValueError
        For steps that it cannot express (`prepare_fault`).
    """
    if fault := prepare_fault(spec):
        raise ValueError(f"no prepare graph: {fault}")
    graph = _Graph()
    levels = graph.node("Gather", "table", "codes", axis=0)
    if spec.levels == "uint8" and getattr(spec.steps[0], "interpolation", None) in _PILLOW:
        wide = graph.clipped(graph.half_up(levels, "across"))
        made = graph.clipped(graph.node("Add", graph.half_up("down", wide, weights_first=True), "border"))
    else:
        made = graph.node("MatMul", "down", graph.node("MatMul", levels, "across"))
        made = graph.node("Add", made, "border")
        if spec.levels == "uint8":
            made = graph.clipped(graph.node("Round", made))
    channels = (1, spec.channels, 1, 1)
    unit = graph.node("Div", made, graph.constant(np.float32(255)))
    planes = graph.node("Reshape", unit, graph.constant(np.array([1, 1, spec.height, spec.width])))
    mean, std = (
        np.array(each, np.float32).reshape(channels) for each in (spec.normalise.mean, spec.normalise.std)
    )
    centred = graph.node("Sub", planes, graph.constant(mean))
    graph.node("Div", centred, graph.constant(std), output="pixels")
    return graph.model(spec)


class _Graph:
    """Nodes and constants in the order they are added."""

    def __init__(self) -> None:
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []

    def node(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or f"{operator.lower()}.{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], name, **attributes))
        return name

    def constant(self, values: Any) -> str:
        name = f"constant.{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def clipped(self, tensor: str) -> str:
        """Keep levels in 0..255."""
        return self.node("Clip", tensor, self.constant(np.float32(0)), self.constant(np.float32(255)))

    def half_up(self, left: str, right: str, *, weights_first: bool = False) -> str:
        """Return a product of whole levels and weights of 22 bits, rounded half up to whole levels.

        Such a product takes 30 bits, and float32 has 24. So the weights are split after their 11th bit: the
        high product is exact, and so is the low one, and what is added to find the next whole number, of a
        filter that spans up to 20 pixels of the image. Of a wider one the last bits of the low product are
        lost, which moves a level by one where the sum is that near to a half.
        """
        weights = left if weights_first else right
        unit = self.constant(np.float32(_SPLIT))
        high = self.node("Div", self.node("Floor", self.node("Mul", weights, unit)), unit)
        low = self.node("Sub", weights, high)
        parts = [
            self.node("MatMul", *((part, right) if weights_first else (left, part))) for part in (high, low)
        ]
        whole = self.node("Floor", parts[0])
        rest = self.node("Add", self.node("Sub", parts[0], whole), parts[1])
        rest = self.node("Floor", self.node("Add", rest, self.constant(np.float32(0.5))))
        return self.node("Add", whole, rest)

    def model(self, spec: Preprocessing) -> bytes:
        facts: dict[str, tuple[int, list[Any]]] = {
            "codes": (TensorProto.INT32, ["rows", "columns"]),
            "table": (TensorProto.FLOAT, ["values"]),
            "down": (TensorProto.FLOAT, [spec.height, "rows"]),
            "across": (TensorProto.FLOAT, ["columns", spec.width]),
            "border": (TensorProto.FLOAT, [spec.height, spec.width]),
        }
        inputs = [helper.make_tensor_value_info(name, *each) for name, each in facts.items()]
        shape = [1, spec.channels, spec.height, spec.width]
        output = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)
        graph = helper.make_graph(self._nodes, "prepare", inputs, [output], self._constants)
        opset = helper.make_opsetid("", OPSET)
        made = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)
        return bytes(made.SerializeToString(deterministic=True))
