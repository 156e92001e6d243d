"""Towers whose sizes are read off the shapes of their published tensors."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from promptray.export.torchvision_guard import ensure_torchvision_imports

ensure_torchvision_imports()

from timm.models.vision_transformer import VisionTransformer  # noqa: E402 - timm imports torchvision
from transformers import BertConfig  # noqa: E402


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
    width, patch = (state[f"{stem}{key}"].shape[-1] for key in ("pos_embed", "patch_embed.proj.weight"))
    return VisionTransformer(
        img_size=image_size,
        patch_size=patch,
        embed_dim=width,
        depth=depth(state, f"{stem}blocks."),
        num_heads=heads,
        mlp_ratio=state[f"{stem}blocks.0.mlp.fc1.weight"].shape[0] / width,
        num_classes=0,
    )


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
    words = state[f"{stem}embeddings.word_embeddings.weight"]
    types = state.get(f"{stem}embeddings.token_type_embeddings.weight")
    return BertConfig(
        vocab_size=words.shape[0],
        hidden_size=words.shape[1],
        num_hidden_layers=depth(state, f"{stem}encoder.layer."),
        num_attention_heads=heads,
        intermediate_size=state[f"{stem}encoder.layer.0.intermediate.dense.weight"].shape[0],
        max_position_embeddings=state[f"{stem}embeddings.position_embeddings.weight"].shape[0],
        type_vocab_size=1 if types is None else types.shape[0],
        pad_token_id=pad_id,
        attn_implementation="eager",  # type: ignore[call-arg]
    )
