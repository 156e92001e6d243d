"""How torch's attention is written in ONNX: in one form that suits every backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset18 as op
from onnxscript.function_libs.torch_lib.ops.nn import aten_scaled_dot_product_attention


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Write keys times scale, product, softmax, product.

    The exporter's own form scales queries and keys each and turns the keys by way of two reshapes. Keys are
    scaled before they are turned: TensorRT-RTX takes the weight of a joint projection apart where only turns
    and cuts lie between it and the products, and then computes an int8 one in float16. Dropout is nothing in
    a graph. With a mask (as Swin has one), or fewer heads of keys, it stays as the exporter writes it.
    """
    if attn_mask is not None or is_causal or enable_gqa:
        return aten_scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa
        )
    *outer, rows, width = range(len(key.shape))
    scaled = op.Mul(key, query.shape[-1] ** -0.5 if scale is None else scale)
    weights = op.Softmax(op.MatMul(query, op.Transpose(scaled, perm=[*outer, width, rows])), axis=-1)
    return op.MatMul(weights, value)


#: For ``torch.onnx.export``, which otherwise writes its own form.
TRANSLATION: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.scaled_dot_product_attention.default: _attention
}
