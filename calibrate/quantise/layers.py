"""The linear layers of a graph: what may be quantised, and under which name people know it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from onnx import NodeProto

from promptray.calibrate.quantise.graph import Graph

#: A weight of fewer elements gains neither bytes nor time, and the last layer of a head is one.
LEAST_WEIGHTS = 1024
_ONE_PLANE = "it reads one plane, whose rounding nothing would average"


@dataclass(frozen=True, eq=False)
class Layer:
    """One product of an activation with a constant weight.

    Attributes
    ----------
    node : NodeProto
        A MatMul, Gemm or dense Conv.
    name : str
        The checkpoint's name of its weight; the node's own where that is unknown.
    group : str
        The block it belongs to: its name up to the last number inside, for example ``encoder.blocks.3``.
    activation : str
        The tensor that is its first input.
    weight : array
    weight_name : str
        Initialiser of `weight`.
    channel_axis : int
        Axis of `weight` that is the output's channels.
    """

    node: NodeProto
    name: str
    group: str
    activation: str
    weight: NDArray[Any]
    weight_name: str
    channel_axis: int

    @property
    def of_one_plane(self) -> bool:
        """Whether it is a dense convolution of one input channel, as a network begins that reads grey once.

        Its few weights are rounded once, where those of three planes are rounded apart and average. It has
        hardly any of a network's products.
        """
        return self.node.op_type == "Conv" and self.weight.shape[1] == 1

    def products(self, shape: tuple[int, ...] | None) -> int:
        """Return the multiplications for an input of a shape, or the weights where there is none."""
        if shape is None:
            return self.weight.size
        if self.node.op_type != "Conv":
            return self.weight.size * math.prod(shape[:-1])
        strides = next((item.ints for item in self.node.attribute if item.name == "strides"), (1, 1))
        return (
            self.weight.size
            * shape[0]
            * math.prod(math.ceil(side / stride) for side, stride in zip(shape[2:], strides, strict=True))
        )


def linear_layers(graph: Graph) -> tuple[list[Layer], dict[str, str]]:
    """Find the linear layers of a graph.

    Returns
    -------
    list of Layer
        In the order of the graph.
    dict of str to str
        Products that are none, by name, with the reason: depthwise convolutions, whose few weights a channel
        int8 damages most (tensorrt.md section 4), and weights too small to gain anything.
    """
    layers, kept = [], {}
    for node in graph.nodes:
        if node.op_type not in ("MatMul", "Gemm", "Conv") or node.input[1] not in graph.constants:
            continue
        weight = graph.constants[node.input[1]]
        name = graph.weight_names.get(node.name, node.name)
        if node.op_type == "Conv" and _attribute(node, "group", 1) != 1:
            kept[name] = "depthwise or grouped convolution"
        elif weight.size < LEAST_WEIGHTS:
            kept[name] = f"{weight.size} weights are too few to gain anything"
        elif node.input[0] in graph.constants or weight.ndim != (4 if node.op_type == "Conv" else 2):
            kept[name] = "no product of an activation with one matrix"
        else:
            layers.append(
                Layer(node, name, group_of(name), node.input[0], weight, node.input[1], _channel_axis(node))
            )
    return layers, kept


def low_layers(graph: Graph) -> tuple[list[Layer], dict[str, str]]:
    """Find, as :func:`linear_layers` does, the layers that schemes of 8 bits and less change."""
    layers, kept = linear_layers(graph)
    high = {layer.name: _ONE_PLANE for layer in layers if layer.of_one_plane}
    return [layer for layer in layers if not layer.of_one_plane], kept | high


def group_of(name: str) -> str:
    """Return the block that a layer belongs to.

    >>> group_of("encoder.model.blocks.3.attn.qkv"), group_of("patch_embed.proj"), group_of("head.2")
    ('encoder.model.blocks.3', 'patch_embed.proj', 'head')
    """
    found = re.match(r"(.*\.\d+)\.", name)
    return found[1] if found else re.sub(r"\.\d+$", "", name)


def _channel_axis(node: NodeProto) -> int:
    return 0 if node.op_type == "Conv" or _attribute(node, "transB", 0) else 1


def _attribute(node: NodeProto, name: str, default: int) -> int:
    return next((int(item.i) for item in node.attribute if item.name == name), default)
