"""Schemes for CPUs that `onnxruntime.quantization` has: ranges of each call, convolutions, weights alone."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from promptray.calibrate.quantise.graph import Graph
from promptray.calibrate.quantise.layers import Layer, linear_layers
from promptray.calibrate.quantise.observe import Feeds
from promptray.calibrate.quantise.scheme import WeightOnly

#: What may stand between convolutions without leaving 8 bits.
_BETWEEN = ("Relu", "MaxPool", "Concat")


def quantise_dynamically(graph: Graph, layers: Sequence[Layer]) -> bytes:
    """Give MatMul layers int8 weights for each output channel; inputs get the range of each call."""
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "dynamic.onnx"
        quantize_dynamic(
            onnx.load_from_string(graph.to_bytes()),
            path,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=[layer.node.name for layer in layers],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
        return _plain(onnx.load(path))


class _Reader(CalibrationDataReader):
    """Inputs one after the other, as the tool asks for them."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Mapping[str, NDArray[Any]] | None:
        return next(self._feeds, None)


def quantise_convolutions(graph: Graph, layers: Sequence[Layer], feeds: Feeds) -> bytes:
    """Give convolutions int8 weights for each output channel, uint8 inputs and uint8 outputs."""
    if not layers:  # to the tool, no names are all names
        return _plain(onnx.load_from_string(graph.to_bytes()))
    taken = {layer.node.name for layer in layers}
    high = [
        layer.node
        for layer in linear_layers(graph)[0]
        if layer.node.op_type == "Conv" and layer.node.name not in taken
    ]
    between = {node.name for node in graph.nodes if node.op_type in _BETWEEN} - _beside(graph, high)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "convolutions.onnx"
        quantize_static(
            onnx.load_from_string(graph.to_bytes()),
            path,
            _Reader(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", *_BETWEEN],
            nodes_to_quantize=sorted(taken | between),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return _plain(onnx.load(path))


def _beside(graph: Graph, high: Sequence[onnx.NodeProto]) -> set[str]:
    """Return what stands between convolutions and touches one that stays high, through others like it."""
    touching: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.nodes:
        if node.op_type in _BETWEEN:
            for tensor in (*node.input, *node.output):
                touching.setdefault(tensor, []).append(node)
    found: set[str] = set()
    reached = [tensor for node in high for tensor in (node.input[0], node.output[0])]
    while reached:
        for node in touching.pop(reached.pop(), []):
            found.add(node.name)
            reached += [*node.input, *node.output]
    return found


def quantise_weights(graph: Graph, layers: Sequence[Layer], scheme: WeightOnly) -> bytes:
    """Store the weights of MatMul layers in blocks of 4 or 8 bits."""
    taken = {layer.node.name for layer in layers}
    with _quiet():
        # Imported here because it configures the program's logging.
        from onnxruntime.quantization import matmul_nbits_quantizer as tool

        form = QuantFormat.QOperator  # in QDQ format it leaves 8 bits undone, with a line in the log
        quantiser = tool.MatMulNBitsQuantizer(
            onnx.load_from_string(graph.to_bytes()),
            algo_config=tool.DefaultWeightOnlyQuantConfig(
                block_size=scheme.block, is_symmetric=True, bits=scheme.bits, quant_format=form
            ),
            nodes_to_exclude=[node.name for node in graph.nodes if node.name not in taken],
        )
        quantiser.process()
        return _plain(quantiser.model.model)


def _plain(model: onnx.ModelProto) -> bytes:
    del model.graph.value_info[:]
    return bytes(model.SerializeToString(deterministic=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tools' advice off the terminal, and the program's logging as it was."""
    root = logging.root
    disabled, level, handlers = root.manager.disable, root.level, list(root.handlers)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
        root.setLevel(level)
        root.handlers[:] = handlers
