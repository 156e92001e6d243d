"""An ONNX graph that adds up what it gives, and the pixels it takes, beside what it is for.

Neither NaN nor infinity can leave a sum again, so one number tells whether every value is one. The graph's
own threads find it while the values are still in their caches; the caller would read all of them again.
What is added is written in the wire format of protocol buffers (field numbers of ``onnx.proto``), without
importing onnx: a message that follows another of its kind is merged into it, and lists go on.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from promptray.runtime.backends.declared import DeclaredGraph, DeclaredTensor, Tensors

#: The output that is added, float32 of one element.
TOTAL = "promptray.total"

_LAST_AXIS = "promptray.last_axis"
# Field numbers.
_GRAPH = 7  # of a model
_NODE, _INITIALISER, _OUTPUT = 1, 5, 12  # of a graph
_TAKES, _GIVES, _OPERATOR = 1, 2, 4  # of a node
_DIMS, _TYPE_OF_TENSOR, _NAME_OF_TENSOR, _RAW_DATA = 1, 2, 8, 9
_NAME, _TYPE = 1, 2  # of an output
_OF_TENSORS, _OF_ELEMENTS, _SHAPE = 1, 1, 2  # within its type
_DIMENSION, _SIZE = 1, 1  # of a shape
_FLOAT, _INT64 = 1, 7


def can_total(graph: DeclaredGraph) -> bool:
    """Tell whether all that is to be added up are arrays of float32."""
    return all(tensor.dtype == "float32" and tensor.dims for tensor in _summed(graph))


def total_shape(graph: DeclaredGraph) -> tuple[int, ...]:
    """Return the shape of :data:`TOTAL`: one element, of as many dimensions as a tensor has that is added."""
    return (1,) * max(len(tensor.dims) for tensor in _summed(graph))


def declared_total(graph: DeclaredGraph) -> Tensors:
    """Return what a graph has beside what the manifest says, once it was added."""
    return {TOTAL: ("float32", len(total_shape(graph)))}


def with_total(model: bytes, graph: DeclaredGraph) -> bytes:
    """Add the output :data:`TOTAL` to a graph.

    Parameters
    ----------
    model : bytes
        Content of an ONNX file, operator set 13 or later.
    graph : DeclaredGraph
        What it is for, its inputs and outputs, which :func:`can_total`.
    """
    names = [tensor.name for tensor in _summed(graph)]
    return model + _message(_GRAPH, b"".join(_added(names, total_shape(graph))))


def _summed(graph: DeclaredGraph) -> Sequence[DeclaredTensor]:
    """Return the outputs, and of an image graph the pixels: a quantised one takes NaN for a number."""
    return (*graph.inputs, *graph.outputs) if graph.role == "image" else graph.outputs


def _added(tensors: Sequence[str], shape: Sequence[int]) -> Iterator[bytes]:
    axis = _number(_DIMS, 1) + _number(_TYPE_OF_TENSOR, _INT64) + _message(_RAW_DATA, struct.pack("<q", -1))
    yield _message(_INITIALISER, axis + _text(_NAME_OF_TENSOR, _LAST_AXIS))
    for name in tensors:
        # Rows first: that is what ONNX Runtime divides among its threads.
        rows, whole = f"promptray.rows.{name}", f"promptray.whole.{name}"
        yield _node("ReduceSum", [name, _LAST_AXIS], rows)
        yield _node("ReduceSum", [rows], whole)
    yield _node("Sum", [f"promptray.whole.{name}" for name in tensors], TOTAL)
    sizes = b"".join(_message(_DIMENSION, _number(_SIZE, size)) for size in shape)
    elements = _number(_OF_ELEMENTS, _FLOAT) + _message(_SHAPE, sizes)
    yield _message(_OUTPUT, _text(_NAME, TOTAL) + _message(_TYPE, _message(_OF_TENSORS, elements)))


def _node(operator: str, takes: Sequence[str], gives: str) -> bytes:
    names = b"".join(_text(_TAKES, name) for name in takes) + _text(_GIVES, gives)
    return _message(_NODE, names + _text(_OPERATOR, operator))


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
