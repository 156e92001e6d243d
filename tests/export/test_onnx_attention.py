"""Attention of a library in an exported graph: which operators, and torch's own answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from promptray.export.families.base import Side, tensor
from promptray.export.onnx_graph import export_graph

PLAIN = ["Mul", "Transpose", "MatMul", "Softmax", "MatMul"]
#: Greatest difference of values of about 1 to what torch computes.
TOLERANCE = 2e-6


class Attention(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor]:
        return (nn.functional.scaled_dot_product_attention(query, key, value, **self.options),)


def exported(outer: tuple[int, ...], heads: int = 4, **options: Any) -> list[str]:
    """Export an attention of 5 queries over 7 keys, hold it to torch's answers; return its operators."""
    module = Attention(**options)
    keys = (*outer[:-1], heads, 7, 8)
    dims = {"query": (*outer, 5, 8), "key": keys, "value": keys}
    inputs = [tensor(name, "batch", *shape) for name, shape in dims.items()]
    content = export_graph(Side(module, inputs, [tensor("out", "batch", *outer, 5, 8)]), "attention")
    random = np.random.default_rng(0)
    feed = {name: random.standard_normal((3, *shape), np.float32) for name, shape in dims.items()}
    (expected,) = module(*map(torch.from_numpy, feed.values()))
    (found,) = ort.InferenceSession(content).run(None, feed)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=TOLERANCE)
    return [node.op_type for node in onnx.load_from_string(content).graph.node]


@pytest.mark.parametrize("outer", [(4,), (2, 4)])
@pytest.mark.parametrize("options", [{}, {"scale": 0.3}])
def test_keys_are_scaled_and_turned_once(outer: tuple[int, ...], options: dict[str, float]) -> None:
    assert exported(outer, **options) == PLAIN


@pytest.mark.parametrize(
    "options",
    [
        {"is_causal": True},
        {"attn_mask": torch.linspace(-3, 3, 35).reshape(5, 7), "scale": 0.3},
        {"attn_mask": torch.arange(35).reshape(5, 7) % 3 > 0},
    ],
)
def test_a_mask_is_written_as_the_exporter_does(options: dict[str, Any]) -> None:
    operators = exported((4,), **options)
    assert "Softmax" in operators
    assert operators != PLAIN


def test_keys_of_fewer_heads_are_repeated() -> None:
    operators = exported((4,), heads=2, enable_gqa=True)
    assert "Expand" in operators
