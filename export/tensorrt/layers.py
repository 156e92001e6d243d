"""The layers of an engine after fusion, as the builder lists them in its log.

Without a GPU no engine can be opened and inspected. But at its most detailed, the log of TensorRT-RTX has a
message with a line for every fused layer: its kind, the types it reads and writes, the ONNX nodes in it.
"""

from __future__ import annotations

import re

import msgspec

HEADING = "Layers:"
_LAYER = re.compile(r"^Name: (?P<name>.*?), LayerType: (?P<kind>\w+), (?P<rest>.*)$")
_TENSOR = re.compile(r"\{ Name: (.*?), Dimensions: .*?, Datatype: (\w+)")
_NODE = re.compile(r"\[ONNX Layer: (.*?)\]")
#: What TensorRT calls its fused attention; a number is the version of the kernel.
_ATTENTION = re.compile(r"_mha_|_mha\b|fmha")
_PRODUCTS = frozenset({"gemm", "correlation", "runtime_fusion"})


class Tensor(msgspec.Struct, frozen=True):
    """What a layer reads or writes: a name, and a type as TensorRT names it: Float, Half, Int8, FP8."""

    name: str
    type: str


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One fused layer.

    Attributes
    ----------
    name : str
    kind : str
        ``gemm`` and ``correlation`` are products; ``runtime_fusion`` is a product with what surrounds it;
        ``kgen`` is generated code, fused attention among it.
    inputs, constants, outputs : tuple of Tensor
    nodes : tuple of str
        ONNX nodes that became part of it.
    """

    name: str
    kind: str
    inputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[str, ...]

    @property
    def is_attention(self) -> bool:
        """Whether both products of an attention and the softmax between them are one kernel."""
        return bool(_ATTENTION.search(self.name))

    @property
    def is_product(self) -> bool:
        """Whether it is a matrix product or a convolution, alone or with what surrounds it."""
        return self.kind in _PRODUCTS

    @property
    def operands(self) -> tuple[str, ...]:
        """Types of a product's two operands: an input and a weight, or two inputs."""
        return tuple(each.type for each in (*self.inputs, *self.constants)[:2])


def layers_of(message: str) -> list[Layer]:
    """Parse the message that lists the layers.

    Parameters
    ----------
    message : str
        It begins with :data:`HEADING`; tensors and other facts follow the layers.
    """
    return [
        _layer(found) for line in message.splitlines() if (found := _LAYER.match(line.strip())) is not None
    ]


def _layer(found: re.Match[str]) -> Layer:
    inputs, _, rest = found["rest"].partition("Constants: [")
    constants, _, outputs = rest.partition("Outputs: [")
    return Layer(
        name=found["name"],
        kind=found["kind"],
        inputs=_tensors(inputs),
        constants=_tensors(constants),
        outputs=_tensors(outputs),
        nodes=tuple(dict.fromkeys(_NODE.findall(found["rest"]))),
    )


def _tensors(listed: str) -> tuple[Tensor, ...]:
    return tuple(Tensor(name, kind) for name, kind in _TENSOR.findall(listed))
