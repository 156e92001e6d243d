"""An exported graph opened for change: its constants computed, its nodes and tensors looked up by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnx_ir.passes.common
import onnxscript.optimizer
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper

from promptray.runtime.errors import BuildError

_ANY_SIZE = 2**40  # bytes; the folder's own limits spare it the large weights


class Graph:
    """A graph of the ONNX standard, whose nodes and initialisers may be replaced.

    Everything that depends on constants alone is computed: the exporter leaves projections as slices of a
    larger weight, and a weight that is still to be sliced is no weight to a quantiser.

    Parameters
    ----------
    content : bytes
        As :func:`promptray.export.onnx_graph.export_graph` makes it. Not changed.
    weight_names : mapping of str to str, optional
        Node -> what the checkpoint calls its weight, where an earlier reading of the graph knew.

    Raises
    ------
    BuildError
        ``quantise.graph`` when these are no such bytes.
    """

    def __init__(self, content: bytes, weight_names: Mapping[str, str] | None = None) -> None:
        try:
            model = onnx.load_from_string(content)
            #: Operators of the graph as it came.
            self.operators = {node.op_type for node in model.graph.node}
            self.weight_names = _weight_names(model) if weight_names is None else weight_names
            folded = onnx_ir.from_proto(model)
            onnxscript.optimizer.fold_constants(
                folded, input_size_limit=_ANY_SIZE, output_size_limit=_ANY_SIZE
            )
            onnx_ir.passes.common.RemoveUnusedNodesPass()(folded)
        except (DecodeError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise unreadable(error) from error
        self.model = onnx_ir.to_proto(folded)
        foreign = sorted({node.domain for node in self.nodes if node.domain})
        if foreign or not self.nodes:
            raise unreadable(ValueError(f"operators of {', '.join(foreign) or 'no kind'}"))
        for item in (*self.nodes, *self.model.graph.value_info, *self.model.graph.initializer):
            item.ClearField("metadata_props")
            item.ClearField("doc_string")

    @property
    def nodes(self) -> list[NodeProto]:
        """All nodes, each after those it depends on."""
        return list(self.model.graph.node)

    @cached_property
    def constants(self) -> dict[str, NDArray[Any]]:
        """Initialisers by name, read only."""
        return {tensor.name: numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer}

    @property
    def float_tensors(self) -> set[str]:
        """Names of all tensors and constants of type float32."""
        graph = onnx.shape_inference.infer_shapes(self.model).graph
        found = {
            value.name
            for value in (*graph.value_info, *graph.input, *graph.output)
            if value.type.tensor_type.elem_type == TensorProto.FLOAT
        }
        return found | {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}

    @cached_property
    def consumers(self) -> dict[str, list[NodeProto]]:
        """Tensor -> the nodes that read it."""
        found: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                found.setdefault(name, []).append(node)
        return found

    @cached_property
    def outputs(self) -> set[str]:
        """Names of the graph's outputs."""
        return {value.name for value in self.model.graph.output}

    def replace(
        self, nodes: Iterable[NodeProto] | None = None, constants: dict[str, NDArray[Any]] | None = None
    ) -> None:
        """Put other nodes and constants in place; constants that no node reads are dropped."""
        graph = self.model.graph
        kept_nodes = self.nodes if nodes is None else list(nodes)
        kept = self.constants if constants is None else constants
        read = {name for node in kept_nodes for name in node.input} | self.outputs
        del graph.node[:], graph.initializer[:]
        graph.node.extend(kept_nodes)
        graph.initializer.extend(
            numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
            for name, array in kept.items()
            if name in read
        )
        self.__dict__.pop("constants", None)
        self.__dict__.pop("consumers", None)

    def to_bytes(self) -> bytes:
        """Serialise, the same bytes every time, without the shapes and types noted along the way."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        del model.graph.value_info[:]
        return bytes(model.SerializeToString(deterministic=True))


def unreadable(error: Exception) -> BuildError:
    """Return the refusal of bytes that are no graph this package exported."""
    line = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return BuildError(
        "quantise.graph",
        f"the graph cannot be quantised: {line}",
        expected="an ONNX graph of standard operators, as the export stage writes it",
        cure="build the bundle again with this version and quantise its fp32 graphs",
    )


def _weight_names(model: onnx.ModelProto) -> dict[str, str]:
    """Return, for every node with a weight, the weight's name in the checkpoint.

    Folding gives sliced and transposed weights names without meaning, so they are followed to their source
    before it. Where the exporter did so already, the bias added next is what still has a name.
    """
    graph = model.graph
    made_by = {output: node for node in graph.node for output in node.output}
    stored = {tensor.name for tensor in graph.initializer}
    read_by: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            read_by.setdefault(name, []).append(node)

    def source(name: str) -> str | None:
        while name in made_by:
            inputs = made_by[name].input
            if not inputs:
                return None
            name = inputs[0]
        return name if name in stored and "." in name else None

    found = {}
    for node in graph.node:
        after = [other for other in read_by.get(node.output[0], []) if other.op_type == "Add"]
        candidates = [source(name) for name in node.input[1:]]
        candidates += [name for other in after for name in other.input if name in stored and "." in name]
        named = next((name for name in candidates if name), None)
        if named:
            found[node.name] = re.sub(r"[._](weight|bias)$", "", named)
    return found
