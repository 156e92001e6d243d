"""A head's graph with its prompt bank inside: image features go in, the scores of its findings come out.

The bank is constant and no input. A server that takes it as an input would take any: a foreign bank gives
numbers that look like scores. It would travel with every request, and it has no batch dimension, without
which Triton puts no requests together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from promptray.runtime.bundle.manifest import Graph, TensorFacts
from promptray.runtime.errors import BuildError
from promptray.runtime.prompts import PromptBank, rows_of

#: Largest message of protocol buffers, less room for the graph itself.
_LARGEST = 2**31 - 2**20
_PROMPTS = "prompts"


def whole_bank(bank: PromptBank) -> Mapping[str, NDArray[Any]]:
    """Return all prompts of a bank as one call of its head takes them, in the bank's order.

    The runtime scores prompts of one bucket of rows together; one graph has one number of rows, that of the
    longest prompt's bucket. Padding changes scores by rounding only (docs/bundle-format.md, section 5).
    """
    rule = bank.rule
    longest = max(rows_of(entry, rule) for entry in bank)
    buckets = [bucket for bucket in rule.row_buckets if bucket >= longest][:1]
    (batch,) = PromptBank(msgspec.structs.replace(rule, row_buckets=buckets), bank).batches()
    return batch.tensors


def bake(model: bytes, facts: Graph, bank: PromptBank) -> tuple[bytes, Graph]:
    """Make the bank of a head constants of its graph.

    Parameters
    ----------
    model : bytes
        The ONNX model.
    facts : Graph
        Its inputs are image features and tensors of the bank.
    bank : PromptBank
        At least one prompt.

    Returns
    -------
    bytes
        The ONNX model, whose inputs are image features alone.
    Graph
        What it takes and gives: prompts are a fixed number.

    Raises
    ------
    BuildError
        ``export.failed`` where the two are more than an ONNX file can hold.
    """
    tensors = {name: array for name, array in whole_bank(bank).items() if _takes(facts, name)}
    size = len(model) + sum(array.nbytes for array in tensors.values())
    if size > _LARGEST:
        raise BuildError(
            "export.failed",
            "a head and its bank are more than one ONNX file can hold",
            artefact=facts.title,
            expected=f"at most {_LARGEST} bytes",
            found=str(size),
            cure="make a bundle of fewer findings",
        )
    proto = onnx.load_from_string(model)
    graph = proto.graph
    features = [value for value in graph.input if value.name not in tensors]
    del graph.input[:]
    graph.input.extend(features)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in tensors.items())
    del graph.value_info[:]  # shapes in between, which named the number of prompts
    for output in graph.output:
        for dim in output.type.tensor_type.shape.dim:
            if dim.dim_param == _PROMPTS:
                dim.dim_value = len(bank)
    baked = msgspec.structs.replace(
        facts,
        inputs=[each for each in facts.inputs if each.name not in tensors],
        outputs=[_counted(each, len(bank)) for each in facts.outputs],
    )
    return proto.SerializeToString(), baked


def _takes(facts: Graph, name: str) -> bool:
    return any(each.name == name for each in facts.inputs)


def _counted(facts: TensorFacts, prompts: int) -> TensorFacts:
    return msgspec.structs.replace(facts, dims=[prompts if dim == _PROMPTS else dim for dim in facts.dims])
