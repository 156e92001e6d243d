"""ONNX files as bundles may hold them: weights inside, so that what was hashed is all that runs.

ONNX Runtime itself follows the names of other files that a model may keep its weights in, and which ones
it follows differs between its versions. The file is walked here field by field (the wire format of protocol
buffers; field numbers of ``onnx.proto``), without importing onnx.
"""

from __future__ import annotations

from collections.abc import Iterator

from promptray.runtime.errors import BundleError

# Message -> the fields of it that hold messages in which a tensor may be.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def require_self_contained(model: bytes, name: str) -> None:
    """Refuse a model that keeps weights in other files.

    Parameters
    ----------
    model : bytes
        Content of an ONNX file.
    name : str
        Its name in the bundle, for the error.

    Raises
    ------
    BundleError
        ``bundle.unsafe-path``; ``bundle.format`` where the bytes are no ONNX file.
    """
    try:
        external = _holds_external(memoryview(model))
    except (IndexError, ValueError):
        raise BundleError(
            "bundle.format", "the graph is no ONNX file", artefact=name, cure="build the bundle again"
        ) from None
    if external:
        raise BundleError(
            "bundle.unsafe-path",
            "the graph keeps weights in another file, which the bundle's hashes do not cover",
            artefact=name,
            expected="weights inside the graph's own file",
            cure="build the bundle again",
        )


def _holds_external(model: memoryview) -> bool:
    waiting = [("model", model)]
    while waiting:
        kind, message = waiting.pop()
        for field, value in fields(message):
            inner = _FIELDS[kind].get(field)
            if inner is not None and isinstance(value, memoryview):
                waiting.append((inner, value))
            elif kind == "tensor" and field in (_EXTERNAL_DATA, _DATA_LOCATION) and value != 0:
                return True
    return False


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of each field; fixed-size ones, which no message is, as 0."""
    position, end = 0, len(message)
    while position < end:
        tag, position = _varint(message, position)
        wire = tag & 7
        if wire == _VARINT:
            value, position = _varint(message, position)
            yield tag >> 3, value
        elif wire == _BYTES:
            length, position = _varint(message, position)
            if position + length > end:
                raise ValueError("a field beyond its message")
            yield tag >> 3, message[position : position + length]
            position += length
        elif wire in (_FIXED32, _FIXED64):
            position += 4 if wire == _FIXED32 else 8
            if position > end:
                raise ValueError("a field beyond its message")
            yield tag >> 3, 0
        else:
            raise ValueError("no wire type of ONNX")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
    raise ValueError("a number of more than ten bytes")
