"""A dual encoder of a few kilobytes: findings asked against their negatives, a vector each, no rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from promptray.runtime.bundle import write_bundle
from promptray.runtime.bundle.manifest import Manifest, bank_id
from tests import bundle_factory as factory
from tests.fuzz.own_answers import with_own_answers
from tests.fuzz.small_bundle import TEXT_GRAPH, small_files

_VECTOR = {"name": "vector", "dtype": "float32", "dims": ["prompts", factory.WIDTH]}
_TOKENS = {"name": "input_ids", "dtype": "int64", "dims": [1, "tokens"]}
_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


def write_dual_encoder(path: Path) -> None:
    """Write a bundle with the miniature's image side, whose map is what each cell adds to the logit."""
    files, manifest = small_files(path.parent), _manifest()
    files[factory.HEAD_GRAPH] = _head_graph()
    files[TEXT_GRAPH] = _text_graph()
    write_bundle(path, manifest, dict(with_own_answers(manifest, files)))


def _manifest() -> Manifest:
    identity = {**factory.IDENTITY, "ensemble": "mean-unit"}
    head = factory.head() | {"relation": "pair", "activation": "softmax"}
    head["bank"] = {
        "file": factory.BANK, "id": bank_id(identity), "identity": identity, "tensors": [_VECTOR],
        "row_buckets": [], "ensemble": "mean-unit",
    }  # fmt: skip
    head["map"] |= {"kind": "similarity", "meaning": "likeness of each cell"}
    findings = factory.document()["findings"]
    for finding in findings:
        finding["prompts"] = ["There is pneumonia.", "There is a finding."]
        finding["negative_prompts"] = ["There is no pneumonia."]
    findings[1]["prompts"] = ["rib fracture"]
    return factory.manifest(
        name="dual encoder", family="open_clip", heads=[head], findings=findings, graphs=_graphs(),
        text=factory.document()["text"] | {"cleaning": "open-clip"},
    )  # fmt: skip


def _graphs() -> list[dict[str, Any]]:
    image, head, text = factory.graphs()
    head["inputs"] = [image["outputs"][1], _VECTOR]
    text["inputs"], text["outputs"] = [_TOKENS], [{**_VECTOR, "dims": [factory.WIDTH]}]
    return [image, head, text]


def _model(role: str, nodes: list[Any], weights: dict[str, NDArray[Any]]) -> bytes:
    facts = next(graph for graph in _graphs() if graph["role"] == role)
    inputs, outputs = (
        [helper.make_tensor_value_info(t["name"], _TYPES[t["dtype"]], t["dims"]) for t in facts[side]]
        for side in ("inputs", "outputs")
    )
    initialisers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, role, inputs, outputs, initialisers)
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9
    )
    return model.SerializeToString()


def _head_graph() -> bytes:
    """Each cell's product with the finding's vector; the logit is their mean."""
    node = helper.make_node
    nodes = [
        node("MatMul", ["vector", "image_grid"], ["cells"]),  # (batch, prompts, cells)
        node("ReduceMean", ["cells", "last"], ["logits"], keepdims=0),
        node("Reshape", ["cells", "shape"], ["maps"]),
    ]
    return _model("head", nodes, {"last": np.array([2]), "shape": np.array([0, 0, 2, 2])})


def _text_graph() -> bytes:
    """The mean of a prompt's word vectors at unit length."""
    node = helper.make_node
    nodes = [
        node("Gather", ["words", "input_ids"], ["pieces"]),  # (1, tokens, width)
        node("ReduceMean", ["pieces", "both"], ["mean"], keepdims=0),
        node("LpNormalization", ["mean"], ["vector"], axis=0, p=2),
    ]
    words = np.random.default_rng(8).normal(0, 1, (11, factory.WIDTH)).astype(np.float32)
    return _model("text", nodes, {"words": words, "both": np.array([0, 1])})
