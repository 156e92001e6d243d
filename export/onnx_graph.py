"""Export one side of a model as an ONNX graph with dynamic dimensions and fused normalisation."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections import Counter

import onnx
import torch
from torch import Tensor

from promptray.export.families.base import Side
from promptray.export.model_facts import OPSET
from promptray.export.onnx_attention import TRANSLATION
from promptray.runtime.bundle.manifest import TensorFacts
from promptray.runtime.errors import BuildError

# Example sizes of dynamic dimensions: all different and above 1, so that the exporter can neither merge two
# of them nor take one for a constant.
_EXAMPLE_SIZES = (2, 3, 5, 7, 11)
#: What the exporter adds to its messages for terminals.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def export_graph(side: Side, title: str) -> bytes:
    """Export a side to ONNX, opset 20, float32, weights inside.

    Parameters
    ----------
    side : Side
    title : str
        What errors call it.

    Raises
    ------
    BuildError
        ``export.failed`` when the exporter fails, or when the graph's inputs, outputs or operators are not
        what the side declares.
    """
    torch.manual_seed(0)
    sizes = _symbol_sizes(side)
    examples = tuple(_example(facts, sizes) for facts in side.inputs)
    symbols = {name: torch.export.Dim(name) for name in sizes}
    shapes = [
        {axis: symbols[dim] for axis, dim in enumerate(facts.dims) if isinstance(dim, str)}
        for facts in side.inputs
    ]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                side.module,
                examples,
                dynamo=True,
                opset_version=OPSET,
                custom_translation_table=TRANSLATION,
                input_names=[facts.name for facts in side.inputs],
                output_names=[facts.name for facts in side.outputs],
                # A module that takes *inputs gets its shapes as one nested tuple.
                dynamic_shapes=(tuple(shapes),) if _takes_star(side) else tuple(shapes),
                verbose=False,
            )
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        message = _COLOURS.sub("", str(error)).partition("\n")[0]
        raise _failed(title, f"{type(error).__name__}: {message[:300]}") from error
    if program is None:
        raise _failed(title, "the exporter gave no program")
    model = program.model_proto
    _require_declared(side, model, title)
    _strip(model)
    buffer = io.BytesIO()
    onnx.save(model, buffer)
    return buffer.getvalue()


def _strip(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes: stack traces, which name folders of this machine, and shapes on the way.

    With every shape noted ONNX Runtime lets more tensors share memory, and a ViT-B takes longer
    (`benchmarks.graph_forms`, "shapes noted").
    """
    graph = model.graph
    graph.ClearField("value_info")
    noted = (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer)
    for item in noted:
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


def _takes_star(side: Side) -> bool:
    return bool(side.module.forward.__code__.co_flags & 0x04)


def _symbol_sizes(side: Side) -> dict[str, int]:
    symbols = dict.fromkeys(dim for facts in side.inputs for dim in facts.dims if isinstance(dim, str))
    return dict(zip(symbols, _EXAMPLE_SIZES, strict=False))


def _example(facts: TensorFacts, sizes: dict[str, int]) -> Tensor:
    shape = [sizes[dim] if isinstance(dim, str) else dim for dim in facts.dims]
    if facts.dtype == "int64":
        return torch.zeros(shape, dtype=torch.int64)
    return torch.randn(shape)


def _require_declared(side: Side, model: onnx.ModelProto, title: str) -> None:
    for declared, actual in ((side.inputs, model.graph.input), (side.outputs, model.graph.output)):
        expected = [(facts.name, len(facts.dims)) for facts in declared]
        found = [(value.name, len(value.type.tensor_type.shape.dim)) for value in actual]
        if expected != found:
            raise _failed(title, f"expected tensors {expected}, found {found}")
        for facts, value in zip(declared, actual, strict=True):
            for dim, got in zip(facts.dims, value.type.tensor_type.shape.dim, strict=True):
                if isinstance(dim, str) and not got.dim_param:
                    raise _failed(title, f"dimension {dim} of {facts.name} was fixed to {got.dim_value}")
    foreign = Counter(node.domain for node in model.graph.node if node.domain)
    if foreign:
        raise _failed(title, f"operators outside the ONNX standard: {dict(foreign)}")


def _failed(title: str, what: str) -> BuildError:
    return BuildError(
        "export.failed",
        f"the {title} graph could not be exported: {what}",
        cure="compare the installed versions with constraints.txt (`promptray doctor` lists them)",
    )
