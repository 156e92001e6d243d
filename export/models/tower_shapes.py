"""Towers whose sizes are read off the shapes of their published tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from promptray.export.layout import sizes_of
from promptray.export.torchvision_guard import ensure_torchvision_imports

ensure_torchvision_imports()

from timm.models.resnet import Bottleneck, ResNet  # noqa: E402 - timm imports torchvision
from timm.models.vision_transformer import VisionTransformer  # noqa: E402
from transformers import BertConfig, BertModel  # noqa: E402

#: Children of a ResNet before its first stage: convolution, norm, activation, pooling.
_RESNET_STEM = 4


def depth(state: Mapping[str, Tensor], stem: str, first: int = 0) -> int:
    """Return how many layers, numbered without a gap from `first`, follow `stem`; lower numbers do not count.

    Raises
    ------
    ValueError
        If there is none, a number is left out, or something else than a number follows.
    """
    names = {key.removeprefix(stem).partition(".")[0] for key in state if key.startswith(stem)}
    odd = sorted(name for name in names if not (name.isascii() and name.isdigit()))
    if odd:
        raise ValueError(f"unexpected {stem}{odd[0]}")
    numbers = sorted(int(name) for name in names if int(name) >= first)
    for expected, number in enumerate(numbers, start=first):
        if number != expected:
            raise ValueError(f"missing {stem}{expected}, and there is {stem}{number}")
    if not numbers:
        raise ValueError(f"missing {stem}{first}")
    return len(numbers)


def square_side(positions: int) -> int:
    """Return the patches a side of a square picture; ValueError where they are no square."""
    side = math.isqrt(positions - 1)
    if positions < 2 or side * side != positions - 1:
        raise ValueError(f"{positions} positions are no square of patches and a class token")
    return side


@dataclass(frozen=True)
class ViTSizes:
    """What the tensors of timm's plain ViT tell.

    Attributes
    ----------
    width, patch, mlp : int
    positions : int
        Rows of the position table, the class token's among them.
    """

    width: int
    patch: int
    mlp: int
    positions: int


def vit_sizes(state: Mapping[str, Tensor], stem: str) -> ViTSizes:
    """Return the sizes of the plain ViT whose tensors follow `stem`; ValueError as `sizes_of`."""
    (width,) = sizes_of(state, f"{stem}blocks.0.norm1.weight", None)
    patch, _ = sizes_of(state, f"{stem}patch_embed.proj.weight", width, 3, None, None)
    (mlp,) = sizes_of(state, f"{stem}blocks.0.mlp.fc1.weight", None, width)
    (positions,) = sizes_of(state, f"{stem}pos_embed", 1, None, width)
    return ViTSizes(width, patch, mlp, positions)


def plain_vit(state: Mapping[str, Tensor], stem: str, *, image_size: int, heads: int) -> VisionTransformer:
    """Make a ViT of the sizes of the tensors after `stem`, which timm names.

    Parameters
    ----------
    image_size : int
        Rows and columns of the pixels that it takes.
    heads : int
        Attention heads, which no tensor tells.

    Raises
    ------
    ValueError, AssertionError
        For tensors that do not describe one.
    """
    sizes = vit_sizes(state, stem)
    return VisionTransformer(
        img_size=image_size,
        patch_size=sizes.patch,
        embed_dim=sizes.width,
        depth=depth(state, f"{stem}blocks."),
        num_heads=heads,
        mlp_ratio=sizes.mlp / sizes.width,
        num_classes=0,
    )


def resnet_stages(state: Mapping[str, Tensor], stem: str) -> nn.Sequential:
    """Make the first stages of a ResNet of bottlenecks, as the children of torchvision's, numbered in a row.

    Stage n (from 1) is child n + 3; with n stages, one position stands for 2 ** (n + 1) pixels a side.

    Raises
    ------
    ValueError
        For tensors that do not describe them.
    """
    stages = depth(state, stem, _RESNET_STEM)
    if stages > 4:
        raise ValueError(f"{stages} stages, and a ResNet has at most 4")
    stems = [f"{stem}{_RESNET_STEM + stage}." for stage in range(stages)]
    bottleneck: Any = Bottleneck  # timm's annotation asks for an instance
    net = ResNet(
        bottleneck,
        tuple(depth(state, each) for each in stems),
        num_classes=0,
        channels=tuple(sizes_of(state, f"{each}0.bn1.weight", None)[0] for each in stems),
    )
    layers = [getattr(net, f"layer{stage + 1}") for stage in range(stages)]
    return nn.Sequential(net.conv1, net.bn1, net.act1, net.maxpool, *layers)


def pooled_bert(state: Mapping[str, Tensor], stem: str, *, heads: int) -> BertModel:
    """Make a BERT with its pooler of the sizes of the tensors after `stem` (see `bert_config`)."""
    return BertModel(bert_config(state, stem, heads=heads), add_pooling_layer=True)


def bert_config(state: Mapping[str, Tensor], stem: str, *, heads: int, pad_id: int = 0) -> BertConfig:
    """Return the configuration of the BERT whose tensors follow `stem`.

    Parameters
    ----------
    heads : int
        Attention heads, which no tensor tells.
    pad_id : int
        Token id of padding.

    Raises
    ------
    ValueError
        For tensors that do not describe one.
    """
    embeddings = f"{stem}embeddings."
    (width,) = sizes_of(state, f"{embeddings}LayerNorm.weight", None)
    (vocabulary,) = sizes_of(state, f"{embeddings}word_embeddings.weight", None, width)
    (positions,) = sizes_of(state, f"{embeddings}position_embeddings.weight", None, width)
    types = f"{embeddings}token_type_embeddings.weight"
    (intermediate,) = sizes_of(state, f"{stem}encoder.layer.0.intermediate.dense.weight", None, width)
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=depth(state, f"{stem}encoder.layer."),
        num_attention_heads=heads,
        intermediate_size=intermediate,
        max_position_embeddings=positions,
        type_vocab_size=sizes_of(state, types, None, width)[0] if types in state else 1,
        pad_token_id=pad_id,
        attn_implementation="eager",  # type: ignore[call-arg]
    )
