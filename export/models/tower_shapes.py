"""Towers whose sizes are read off the shapes of their published tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from promptray.export.torchvision_guard import ensure_torchvision_imports

ensure_torchvision_imports()

from timm.models.resnet import Bottleneck, ResNet  # noqa: E402 - timm imports torchvision
from timm.models.vision_transformer import VisionTransformer  # noqa: E402
from transformers import BertConfig, BertModel  # noqa: E402

#: Children of a ResNet before its first stage: convolution, norm, activation, pooling.
_RESNET_STEM = 4


def shape_of(state: Mapping[str, Tensor], key: str, rank: int) -> tuple[int, ...]:
    """Return the shape of a tensor that tells sizes.

    Parameters
    ----------
    rank : int
        How many dimensions it must have.

    Raises
    ------
    KeyError
        If it is missing.
    ValueError
        Naming key and shape, for another number of dimensions, or one of length 0.
    """
    shape = tuple(state[key].shape)
    if len(shape) != rank or 0 in shape:
        raise ValueError(f"{key}: expected {rank} dimensions of at least 1, found the shape {shape}")
    return shape


def depth(state: Mapping[str, Tensor], stem: str) -> int:
    """Return how many numbered layers follow `stem`.

    Raises
    ------
    ValueError
        If there is none.
    """
    return 1 + max(int(key[len(stem) :].split(".")[0]) for key in state if key.startswith(stem))


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
    KeyError, IndexError, ValueError, AssertionError
        For tensors that do not describe one.
    """
    width = shape_of(state, f"{stem}pos_embed", 3)[-1]
    return VisionTransformer(
        img_size=image_size,
        patch_size=shape_of(state, f"{stem}patch_embed.proj.weight", 4)[-1],
        embed_dim=width,
        depth=depth(state, f"{stem}blocks."),
        num_heads=heads,
        mlp_ratio=shape_of(state, f"{stem}blocks.0.mlp.fc1.weight", 2)[0] / width,
        num_classes=0,
    )


def resnet_stages(state: Mapping[str, Tensor], stem: str) -> nn.Sequential:
    """Make the first stages of a ResNet of bottlenecks, as the children of torchvision's, numbered in a row.

    Stage n (from 1) is child n + 3; with n stages, one position stands for 2 ** (n + 1) pixels a side.

    Raises
    ------
    KeyError, IndexError, ValueError
        For tensors that do not describe them.
    """
    stages = depth(state, stem) - _RESNET_STEM
    if not 1 <= stages <= 4:
        raise ValueError(f"{stages} stages, and a ResNet has at most 4")
    stems = [f"{stem}{_RESNET_STEM + stage}." for stage in range(stages)]
    bottleneck: Any = Bottleneck  # timm's annotation asks for an instance
    net = ResNet(
        bottleneck,
        tuple(depth(state, each) for each in stems),
        num_classes=0,
        channels=tuple(shape_of(state, f"{each}0.conv1.weight", 4)[0] for each in stems),
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
    KeyError, IndexError, ValueError
        For tensors that do not describe one.
    """
    vocabulary, width = shape_of(state, f"{stem}embeddings.word_embeddings.weight", 2)
    types = f"{stem}embeddings.token_type_embeddings.weight"
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=depth(state, f"{stem}encoder.layer."),
        num_attention_heads=heads,
        intermediate_size=shape_of(state, f"{stem}encoder.layer.0.intermediate.dense.weight", 2)[0],
        max_position_embeddings=shape_of(state, f"{stem}embeddings.position_embeddings.weight", 2)[0],
        type_vocab_size=shape_of(state, types, 2)[0] if types in state else 1,
        pad_token_id=pad_id,
        attn_implementation="eager",  # type: ignore[call-arg]
    )
