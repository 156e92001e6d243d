"""BiomedCLIP's forward pass from the key layout alone, in double precision: no module of any library.

Source: open_clip 3.3.0 with timm's ViT and transformers' BERT, as their key names and shapes tell it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import conv2d, gelu, interpolate, layer_norm, normalize

State = Mapping[str, Tensor]
_PARTS = ("query", "key", "value")


def image_tokens(state: State, pixels: Tensor, heads: int) -> Tensor:
    """Return all tokens after the final norm, float64 (B, 1 + P, width), of pixels (B, 3, H, W)."""
    trunk = _part(state, "visual.trunk.")
    kernel = trunk["patch_embed.proj.weight"]
    patches = conv2d(pixels.double(), kernel, trunk["patch_embed.proj.bias"], stride=kernel.shape[-1])
    tokens = patches.flatten(2).transpose(1, 2)
    x = torch.cat([trunk["cls_token"].expand(len(tokens), -1, -1), tokens], dim=1) + trunk["pos_embed"]
    for number in range(_count(trunk, "blocks.")):
        block = _part(trunk, f"blocks.{number}.")
        query, key, value = _linear(block, "attn.qkv", _norm(block, "norm1", x, 1e-6)).chunk(3, dim=-1)
        x = x + _linear(block, "attn.proj", _attention(query, key, value, heads))
        hidden = gelu(_linear(block, "mlp.fc1", _norm(block, "norm2", x, 1e-6)))
        x = x + _linear(block, "mlp.fc2", hidden)
    return _norm(trunk, "norm", x, 1e-6)


def projected_tokens(state: State, pixels: Tensor, heads: int) -> Tensor:
    """Return all tokens projected, not of unit length, float64 (B, 1 + P, D); the first is the image's."""
    return image_tokens(state, pixels, heads) @ state["visual.head.proj.weight"].double().T


def image_vectors(state: State, pixels: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Return unit vectors, float64, of images (B, D) and of their patches (B, P, D)."""
    vectors = normalize(projected_tokens(state, pixels, heads), dim=-1)
    return vectors[:, 0], vectors[:, 1:]


def study_pixels(path: Path, side: int = 224) -> Tensor:
    """Return an 8-bit image as the density study prepares it, float64 (1, 3, side, side).

    0 to 1, then torch's bilinear antialiased resize to the square: no rounding, no normalisation.
    """
    with Image.open(path) as image:
        levels = torch.from_numpy(np.array(image.convert("RGB")))
    unit = levels.permute(2, 0, 1)[None].double() / 255
    return interpolate(unit, (side, side), mode="bilinear", antialias=True, align_corners=False)


def text_vector(state: State, ids: Sequence[int], heads: int) -> Tensor:
    """Return the unit vector, float64 (D,), of one text; padding takes a place and is not attended to."""
    bert = _part(state, "text.transformer.")
    places = [place for place, number in enumerate(ids) if number != 0]
    x = bert["embeddings.word_embeddings.weight"][[ids[place] for place in places]]
    x = x + bert["embeddings.position_embeddings.weight"][places]
    x = x + bert["embeddings.token_type_embeddings.weight"][0]
    x = _norm(bert, "embeddings.LayerNorm", x[None], 1e-12)
    for number in range(_count(bert, "encoder.layer.")):
        layer = _part(bert, f"encoder.layer.{number}.")
        query, key, value = (
            _linear(layer, f"attention.self.{name}", x) for name in ("query", "key", "value")
        )
        mixed = _linear(layer, "attention.output.dense", _attention(query, key, value, heads))
        x = _norm(layer, "attention.output.LayerNorm", x + mixed, 1e-12)
        hidden = gelu(_linear(layer, "intermediate.dense", x))
        x = _norm(layer, "output.LayerNorm", x + _linear(layer, "output.dense", hidden), 1e-12)
    projected = gelu(x[0, 0] @ state["text.proj.0.weight"].double().T)
    return normalize(projected @ state["text.proj.2.weight"].double().T, dim=-1)


def class_vector(state: State, texts: Sequence[Sequence[int]], heads: int) -> Tensor:
    """Return open_clip's zero-shot classifier of one class, float64 (D,)."""
    return normalize(torch.stack([text_vector(state, ids, heads) for ids in texts]).mean(dim=0), dim=-1)


def _attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(dim=-1)
    return (weights @ value).transpose(1, 2).flatten(2)


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _norm(state: State, name: str, x: Tensor, eps: float) -> Tensor:
    return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def _part(state: State, prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value.double() for key, value in state.items() if key.startswith(prefix)}


def _count(state: State, prefix: str) -> int:
    return 1 + max(int(key[len(prefix) :].split(".")[0]) for key in state if key.startswith(prefix))
