"""SmoothQuant: move the outliers of an activation's channels into the weights that read them.

Xiao et al., ICML 2023 (arXiv:2211.10438), equation 4: channel j is divided by
``max|X_j|^alpha / max|W_j|^(1 - alpha)`` and row j of the weights multiplied by it. The division is folded
into what makes the channel: a LayerNormalization's weight and bias, or the linear layer before a ReLU.
Factors are rounded to powers of two, so that float32 results stay equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from promptray.calibrate.quantise.graph import Graph
from promptray.calibrate.quantise.layers import Layer

Array = NDArray[Any]
_MOST = 8  # powers of two either way: beyond it a channel is dead, not an outlier


def smooth(
    graph: Graph, layers: Sequence[Layer], channels: Mapping[str, Array], alpha: float
) -> tuple[int, int]:
    """Fold smoothing factors into a graph wherever that changes nothing in float32.

    Parameters
    ----------
    graph : Graph
        Changed; its layers must be looked up again.
    layers : sequence of Layer
        Those that will be quantised.
    channels : mapping of str to array
        Greatest magnitude of every channel of each layer's input, from the same graph.
    alpha : float
        Share of the outliers that moves into the weights.

    Returns
    -------
    (int, int)
        How many inputs of layers were smoothed, and how many could not: something else reads them too (the
        residual sum of a BERT), or what makes them cannot take a factor (GELU, attention).
    """
    constants = dict(graph.constants)
    made_by = {name: node for node in graph.nodes for name in node.output}
    done = 0
    inputs = list(dict.fromkeys(layer.activation for layer in layers if layer.node.op_type != "Conv"))
    for tensor in inputs:
        readers = [layer for layer in layers if layer.activation == tensor]
        if tensor in graph.outputs or len(readers) != len(graph.consumers[tensor]):
            continue
        source = _source(graph, made_by, tensor, constants)
        if source is None or any(len(graph.consumers[name]) > 1 for name in source):
            continue
        factors = _factors(channels[tensor], readers, alpha)
        for name in source:  # (..., channels)
            constants[name] = constants[name] / factors
        for name in {layer.weight_name for layer in readers}:
            layer = next(each for each in readers if each.weight_name == name)
            axis = 1 - layer.channel_axis
            constants[name] = constants[name] * factors.reshape([-1, 1] if axis == 0 else [1, -1])
        done += 1
    graph.replace(constants=constants)
    return done, len(inputs) - done


def _source(
    graph: Graph, made_by: Mapping[str, NodeProto], tensor: str, constants: Mapping[str, Array]
) -> list[str] | None:
    """Return the constants whose last axis is the tensor's channels, or None where a factor cannot enter."""
    node = made_by.get(tensor)
    if node is not None and node.op_type == "LayerNormalization":
        names = [name for name in node.input[1:] if name]
        return names if all(name in constants for name in names) else None
    if node is None or node.op_type != "Relu":
        return None
    added = made_by.get(node.input[0])
    if added is None or added.op_type != "Add" or len(graph.consumers[node.input[0]]) > 1:
        return None
    bias = next((name for name in added.input if name in constants), None)
    product = next((made_by[name] for name in added.input if name in made_by), None)
    if bias is None or product is None or product.op_type != "MatMul" or product.input[1] not in constants:
        return None
    single = len(graph.consumers[product.output[0]]) == 1
    return (
        [product.input[1], bias]
        if single and constants[bias].size == constants[product.input[1]].shape[1]
        else None
    )


def _factors(channels: Array, readers: Sequence[Layer], alpha: float) -> NDArray[np.float32]:
    weights = np.max([np.abs(layer.weight).max(axis=layer.channel_axis) for layer in readers], axis=0).astype(
        np.float64
    )
    alive = (channels > 0) & (weights > 0)
    power = np.zeros(len(weights))
    power[alive] = alpha * np.log2(channels[alive].astype(np.float64)) - (1 - alpha) * np.log2(weights[alive])
    return np.exp2(np.clip(np.round(power), -_MOST, _MOST)).astype(np.float32)
