"""Graphs of a few nodes, and how to build them for one GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from promptray.export.tensorrt import Built, Profile, build_engine, load_flavour
from promptray.runtime.engines.settings import Settings

WIDTH = 64


def graph(
    nodes: Sequence[NodeProto],
    weights: dict[str, Any],
    *,
    dtype: int = TensorProto.FLOAT,
    opset: int = 20,
    ir: int = 10,
    batch: str | int = "batch",
) -> bytes:
    """Return ONNX from ``x`` (batch, 64) to ``y``."""
    made = helper.make_graph(
        list(nodes),
        "a few nodes",
        [helper.make_tensor_value_info("x", dtype, [batch, WIDTH])],
        [helper.make_tensor_value_info("y", dtype, [batch, None])],
        [
            value if isinstance(value, TensorProto) else numpy_helper.from_array(value, name)
            for name, value in weights.items()
        ],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    return bytes(model.SerializeToString())


def product(dtype: Any = np.float32, **options: Any) -> bytes:
    """Return one product with a matrix."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    weight = np.random.default_rng(0).standard_normal((WIDTH, WIDTH)).astype(dtype)
    return graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "product")], {"w": weight}, dtype=kind, **options
    )


def quantised(dtype: Any, kind: int, **options: Any) -> bytes:
    """Return one product of 8 bits, its rest float32."""
    weight = np.ones((WIDTH, WIDTH)).astype(dtype)
    stored = helper.make_tensor("w", kind, weight.shape, weight.tobytes(), raw=True)
    zero = helper.make_tensor("z", kind, (), np.zeros((), dtype).tobytes(), raw=True)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "quantise"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], "dequantise"),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["dw"], "dequantise_weight"),
        helper.make_node("MatMul", ["d", "dw"], ["y"], "product"),
    ]
    scale = numpy_helper.from_array(np.array(0.5, np.float32), "s")
    return graph(nodes, {"w": stored, "s": scale, "z": zero}, **options)


def profile(least: int = 1, tuned: int = 1, most: int = 8) -> Profile:
    """Return shapes of ``x``."""
    return Profile({"x": ((least, WIDTH), (tuned, WIDTH), (most, WIDTH))})


def build(
    content: bytes, targets: Sequence[str] = ("8.6",), profiles: Sequence[Profile] | None = None
) -> Built:
    """Build with TensorRT-RTX."""
    given = [profile()] if profiles is None else profiles
    return build_engine(content, given, Settings(), load_flavour("tensorrt_rtx"), targets=targets)
