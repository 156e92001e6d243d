"""KAD by its published formulas, in double precision, from the tensors alone: no module of the package.

Bottlenecks have their stride in the 3 x 3 convolution, as torchvision's ResNet-50 has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class Part:
    """Tensors below a name, in double precision."""

    def __init__(self, tensors: Mapping[str, Tensor], stem: str = "") -> None:
        self._tensors, self._stem = tensors, stem

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[self._stem + name].double()

    def below(self, name: str) -> Part:
        return Part(self._tensors, f"{self._stem}{name}.")

    def has(self, name: str) -> bool:
        return any(key.startswith(f"{self._stem}{name}") for key in self._tensors)

    def count(self, name: str) -> int:
        number = 0
        while self.has(f"{name}.{number}."):
            number += 1
        return number

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self[f"{name}.weight"].T + self[f"{name}.bias"]

    def norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
        return scaled * self[f"{name}.weight"] + self[f"{name}.bias"]

    def batch_norm(self, name: str, x: Tensor) -> Tensor:
        mean, variance, weight, bias = (
            self[f"{name}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def positions(state: Mapping[str, Tensor], pixels: Any) -> Tensor:
    """Pixels (B, 3, H, W) -> (B, P, width)."""
    part = Part(state, "res_features.")
    x = F.conv2d(torch.as_tensor(pixels).double(), part["0.weight"], stride=2, padding=3)
    x = F.max_pool2d(part.batch_norm("1", x).relu(), 3, stride=2, padding=1)
    stage = 4
    while part.has(f"{stage}."):
        for number in range(part.count(str(stage))):
            x = _bottleneck(part.below(f"{stage}.{number}"), x, 2 if stage > 4 and number == 0 else 1)
        stage += 1
    top = Part(state)
    return top.linear("res_l2", top.linear("res_l1", x.flatten(2).transpose(1, 2)).relu())


def _bottleneck(part: Part, x: Tensor, stride: int) -> Tensor:
    y = part.batch_norm("bn1", F.conv2d(x, part["conv1.weight"])).relu()
    y = part.batch_norm("bn2", F.conv2d(y, part["conv2.weight"], stride=stride, padding=1)).relu()
    y = part.batch_norm("bn3", F.conv2d(y, part["conv3.weight"]))
    if part.has("downsample."):
        x = part.batch_norm("downsample.1", F.conv2d(x, part["downsample.0.weight"], stride=stride))
    return (x + y).relu()


def queries(state: Mapping[str, Tensor], ids: Sequence[Sequence[int]], heads: int) -> Tensor:
    """Token ids of each finding, unpadded -> (N, width)."""
    return torch.stack([_query(Part(state), list(each), heads) for each in ids])


def _query(part: Part, ids: list[int], heads: int) -> Tensor:
    bert = part.below("bert_model")
    tables = bert.below("embeddings")
    x = tables["word_embeddings.weight"][ids] + tables["position_embeddings.weight"][: len(ids)]
    x = tables.norm("LayerNorm", x + tables["token_type_embeddings.weight"][0], 1e-12)
    for number in range(bert.count("encoder.layer")):
        layer = bert.below(f"encoder.layer.{number}")
        q, k, v = (
            layer.linear(f"attention.self.{name}", x).unflatten(-1, (heads, -1)).transpose(0, 1)
            for name in ("query", "key", "value")
        )
        weights = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1)
        attended = layer.linear("attention.output.dense", (weights @ v).transpose(0, 1).flatten(1))
        x = layer.norm("attention.output.LayerNorm", x + attended, 1e-12)
        fed = layer.linear("output.dense", F.gelu(layer.linear("intermediate.dense", x)))
        x = layer.norm("output.LayerNorm", x + fed, 1e-12)
    pooled = bert.linear("pooler.dense", x[0]).tanh()
    return part.linear("mlp_embed.2", F.gelu(part.linear("mlp_embed.0", pooled)))


def decoded(state: Mapping[str, Tensor], memory: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """Positions (B, P, width), queries (N, width) -> outputs (B, N, 2), attention (B, N, P)."""
    part = Part(state)
    memory, x = (
        part.norm("decoder_norm", each, 1e-5) for each in (memory, asked.expand(len(memory), -1, -1))
    )
    for number in range(part.count("decoder.layers")):
        layer = part.below(f"decoder.layers.{number}")
        normed = layer.norm("norm1", x, 1e-5)
        x = x + _attend(layer.below("self_attn"), normed, normed)[0]
        attended, weights = _attend(layer.below("multihead_attn"), layer.norm("norm2", x, 1e-5), memory)
        x = x + attended
        x = x + layer.linear("linear2", layer.linear("linear1", layer.norm("norm3", x, 1e-5)).relu())
    return part.linear("mlp_head.0", part.norm("decoder_norm", x, 1e-5)), weights


def _attend(part: Part, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Four heads by torch's packed weights; the weights' mean over heads."""
    projected = zip(
        (x, memory, memory), part["in_proj_weight"].chunk(3), part["in_proj_bias"].chunk(3), strict=True
    )
    q, k, v = ((each @ w.T + b).unflatten(-1, (4, -1)).transpose(1, 2) for each, w, b in projected)
    weights = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(-1)
    return part.linear("out_proj", (weights @ v).transpose(1, 2).flatten(2)), weights.mean(1)


def scored(
    content: Mapping[str, Any], pixels: Any, ids: Sequence[Sequence[int]], heads: int
) -> tuple[Any, Any]:
    """Return the probabilities of "present" as log-odds (B, N), and maps (B, N, P)."""
    asked = queries(content["text_encoder"], ids, heads)
    outputs, attention = decoded(content["model"], positions(content["image_encoder"], pixels), asked)
    present = outputs.softmax(-1)[..., 1]
    return present.logit().numpy(), attention.numpy()
