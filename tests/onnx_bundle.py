"""A miniature bundle whose graphs run: one attention layer of CARZero's kind, with random weights."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from promptray.runtime.bundle import Bundle, write_bundle
from tests import bundle_factory as factory

SIDE, WIDTH, ROWS = factory.SIDE, factory.WIDTH, (3, 5)
_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


def write_runnable(path: Path, *, bank_id: str | None = None) -> Bundle:
    """Write a bundle that scores its own golden set; `bank_id` replaces the one in its bank file."""
    random = np.random.default_rng(5)
    image_graph, head_graph = _image_graph(random), _head_graph()
    bank = _bank(random)
    pictures = random.integers(0, 256, (factory.GOLDEN, SIDE, SIDE), np.uint8)
    logits, maps = zip(*(_answer(image_graph, picture, bank) for picture in pictures), strict=True)
    golden = {
        "pictures": pictures,
        f"logits.{factory.HEAD}": np.stack(logits).astype(np.float32),
        f"maps.{factory.HEAD}": np.stack(maps).astype(np.float32),
    }
    files: dict[str, bytes | Path] = dict(factory.plain_files())
    files["graphs/image/fp32-20.onnx"] = image_graph.SerializeToString()
    files[factory.HEAD_GRAPH] = head_graph.SerializeToString()
    files[factory.BANK] = _packed(bank, bank_id or factory.head()["bank"]["id"])
    files["golden/golden.safetensors"] = safetensors.numpy.save(golden)
    for name, picture in zip(factory.document()["golden"]["images"], pictures, strict=True):
        files[name] = _png(picture)
    return write_bundle(path, factory.manifest(), files)


def _model(role: str, nodes: list[Any], weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    facts = next(graph for graph in factory.graphs() if graph["role"] == role)
    inputs, outputs = (
        [helper.make_tensor_value_info(t["name"], _TYPES[t["dtype"]], t["dims"]) for t in facts[side]]
        for side in ("inputs", "outputs")
    )
    initialisers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, role, inputs, outputs, initialisers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def _image_graph(random: np.random.Generator) -> onnx.ModelProto:
    half = SIDE // 2
    node = helper.make_node
    nodes = [
        node("Conv", ["pixels", "kernel"], ["cells"], kernel_shape=[half, half], strides=[half, half]),
        node("Reshape", ["cells", "grid_shape"], ["image_grid"]),
        node("ReduceMean", ["cells", "sides"], ["mean"], keepdims=0),
        node("Reshape", ["mean", "query_shape"], ["image_query"]),
    ]
    weights = {
        "kernel": random.normal(0, 0.01, (WIDTH, 3, half, half)).astype(np.float32),
        "grid_shape": np.array([-1, WIDTH, 4]),
        "sides": np.array([2, 3]),
        "query_shape": np.array([-1, 2, WIDTH // 2]),
    }
    return _model("image", nodes, weights)


def _head_graph() -> onnx.ModelProto:
    """The logit sums what the image's query finds in the rows; the map is softmax over cells."""
    node = helper.make_node
    nodes = [
        node("Reshape", ["image_query", "query_shape"], ["q"]),  # (batch, 1, heads, 1, d)
        node("MatMul", ["q", "keys.0"], ["dots"]),  # (batch, prompts, heads, 1, rows)
        node("Unsqueeze", ["row_bias", "bias_axes"], ["bias"]),
        node("Add", ["dots", "bias"], ["biased"]),
        node("Softmax", ["biased"], ["attention"], axis=-1),
        node("MatMul", ["attention", "values.0"], ["looked"]),
        node("ReduceSum", ["looked", "logit_axes"], ["logits"], keepdims=0),
        node("MatMul", ["query", "image_grid"], ["map_dots"]),  # (batch, prompts, cells)
        node("Softmax", ["map_dots"], ["flat_maps"], axis=-1),
        node("Reshape", ["flat_maps", "map_shape"], ["maps"]),
    ]
    weights = {
        "query_shape": np.array([-1, 1, 2, 1, WIDTH // 2]),
        "bias_axes": np.array([1, 2]),
        "logit_axes": np.array([2, 3, 4]),
        "map_shape": np.array([0, 0, 2, 2]),
    }
    return _model("head", nodes, weights)


def _bank(random: np.random.Generator) -> list[dict[str, np.ndarray]]:
    half = WIDTH // 2
    shapes = {"query": (WIDTH,), "keys.0": (2, half, -1), "values.0": (2, -1, half), "row_bias": (-1,)}
    return [
        {
            name: random.normal(0, 1, [rows if side < 0 else side for side in shape]).astype(np.float32)
            for name, shape in shapes.items()
        }
        for rows in ROWS
    ]


def _packed(bank: list[dict[str, np.ndarray]], bank_id: str) -> bytes:
    axes = {"keys.0": 2, "values.0": 1, "row_bias": 0}
    tensors = {
        name: np.ascontiguousarray(np.concatenate([np.moveaxis(prompt[name], axis, 0) for prompt in bank]))
        for name, axis in axes.items()
    }
    tensors["query"] = np.stack([prompt["query"] for prompt in bank])
    tensors["offsets"] = np.concatenate([[0], np.cumsum(ROWS)]).astype(np.int64)
    wording = {"text": "p", "cleaned": "p", "words": 1, "truncated": False}
    facts = json.dumps([{"key": f"finding {n}", "prompts": [wording]} for n in (0, 1)])
    return bytes(safetensors.numpy.save(tensors, {"bank_id": bank_id, "prompts": facts}))


def _answer(
    image_graph: onnx.ModelProto, picture: np.ndarray, bank: list[dict[str, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """The arithmetic of both graphs in float64, prompt by prompt, without padding."""
    kernel = next(numpy_helper.to_array(t) for t in image_graph.graph.initializer if t.name == "kernel")
    pixels = np.broadcast_to((picture / 255 - 0.5) / 0.25, (3, SIDE, SIDE))
    half = SIDE // 2
    cells = pixels.reshape(3, 2, half, 2, half).transpose(1, 3, 0, 2, 4).reshape(4, -1)
    grid = kernel.reshape(WIDTH, -1).astype(np.float64) @ cells.T
    query = grid.mean(axis=1).reshape(2, 1, WIDTH // 2)
    logits, maps = [], []
    for prompt in bank:
        weights = _softmax(query @ prompt["keys.0"].astype(np.float64) + prompt["row_bias"])
        logits.append((weights @ prompt["values.0"]).sum())
        maps.append(_softmax(prompt["query"].astype(np.float64) @ grid).reshape(2, 2))
    return np.array(logits), np.array(maps)


def _softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()
