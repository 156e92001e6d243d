"""What of an ONNX file decides whether a TensorRT reads it, taken from its bytes without importing onnx.

Field numbers are those of ``onnx.proto``.
"""

from __future__ import annotations

from dataclasses import dataclass

from promptray.export.tensorrt.flavour import Flavour
from promptray.runtime.backends.onnx_files import fields, require_self_contained
from promptray.runtime.errors import BuildError, BundleError

_TYPES = {1: "FP32", 10: "FP16", 16: "BF16", 3: "INT8", 17: "FP8"}
_REBUILD = "build the bundle again with this version: opset 20, and 17 where the recipe asks for 8.6"


@dataclass(frozen=True)
class Model:
    """Facts of a graph.

    Attributes
    ----------
    ir : int
        Version of the file format.
    opset : int
        Of the standard's operators.
    operators : dict of str to str
        Operator -> the first node that is one.
    types : frozenset of str
        Of its constants: FP32, FP16, BF16, INT8, FP8.
    """

    ir: int
    opset: int
    operators: dict[str, str]
    types: frozenset[str]


def read_model(content: bytes) -> Model:
    """Read the facts of an ONNX file that keeps its weights inside.

    Raises
    ------
    BuildError
        ``engine.build-failed`` for bytes that are no ONNX file, and for weights in other files.
    """
    try:
        require_self_contained(content, "the graph")
        ir = opset = 0
        operators: dict[str, str] = {}
        types: set[str] = set()
        for number, value in fields(memoryview(content)):
            if number == 1 and isinstance(value, int):
                ir = value
            elif number == 8 and isinstance(value, memoryview):
                opset = max(opset, _opset(value))
            elif number == 7 and isinstance(value, memoryview):
                _graph(value, operators, types)
    except BundleError as error:
        raise _unfit(error.message, error.expected, error.found) from error
    except (ValueError, IndexError) as error:
        raise _unfit("the graph is no ONNX file", None, None) from error
    return Model(ir, opset, operators, frozenset(types))


def require_readable(model: Model, flavour: Flavour) -> None:
    """Refuse what a TensorRT of this kind does not read, or reads on some devices alone.

    Raises
    ------
    BuildError
        ``engine.build-failed``.
    """
    if node := model.operators.get("Attention"):
        raise _unfit(
            "the graph has the operator Attention, which TensorRT before 11 does not know and later ones do "
            "not always build",
            "products and Softmax, which TensorRT fuses itself",
            f"node {node}",
        )
    if model.opset > flavour.newest_opset:
        raise _unfit(
            f"the graph's operator set is newer than what {flavour.title} is given here",
            f"ONNX opset {flavour.newest_opset} or older",
            f"opset {model.opset}",
        )
    if model.ir > flavour.newest_ir:
        raise _unfit(
            f"the graph's file format is newer than what {flavour.title} is given here",
            f"ONNX IR version {flavour.newest_ir} or older",
            f"IR version {model.ir}",
        )


def _unfit(what: str, expected: str | None, found: str | None) -> BuildError:
    return BuildError("engine.build-failed", what, expected=expected, found=found, cure=_REBUILD)


def _opset(message: memoryview) -> int:
    """Return the version of an operator set if it is the standard's, else 0."""
    domain, version = b"", 0
    for number, value in fields(message):
        if number == 1 and isinstance(value, memoryview):
            domain = bytes(value)
        elif number == 2 and isinstance(value, int):
            version = value
    return version if domain in (b"", b"ai.onnx") else 0


def _graph(message: memoryview, operators: dict[str, str], types: set[str]) -> None:
    for number, value in fields(message):
        if number == 1 and isinstance(value, memoryview):
            operator, name = _texts(value, 4, 3)
            operators.setdefault(operator, name or "without a name")
        elif number == 5 and isinstance(value, memoryview):
            kind = next((at for field, at in fields(value) if field == 2 and isinstance(at, int)), 0)
            if kind in _TYPES:
                types.add(_TYPES[kind])


def _texts(message: memoryview, *numbers: int) -> tuple[str, ...]:
    found = {at: bytes(text) for at, text in fields(message) if not isinstance(text, int)}
    return tuple(found.get(number, b"").decode() for number in numbers)
