"""OpenAI's CLIP with a ViT, under its own published names: two pre-norm transformers of one kind of block.

Written out rather than taken from a library, because no library's module has these names: so a key that is
missing is named as the file would have it. Linear layers and norms are torch's own.

Source: Radford et al., ICML 2021, arXiv 2103.00020; openai/CLIP, ``model.py`` (MIT).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from promptray.export.layout import sizes_of
from promptray.export.models.tower_shapes import depth, square_side

#: Width of an attention head, in every CLIP with a ViT: no tensor tells it.
HEAD_WIDTH = 64
#: Added to a token's logit where an earlier one asks: its weight is exactly 0, and float16 holds the number.
_LATER = -1e4


class Clip(nn.Module):
    """Both towers.

    Parameters
    ----------
    state : mapping of str to Tensor
        The published tensors; their shapes give the sizes. They are not loaded.

    Raises
    ------
    ValueError, RuntimeError
        For tensors that do not describe a CLIP with a ViT.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.visual = _Visual(state)
        (width,) = sizes_of(state, "ln_final.weight", None)
        (tokens,) = sizes_of(state, "token_embedding.weight", None, width)
        (context,) = sizes_of(state, "positional_embedding", None, width)
        (embed,) = sizes_of(state, "text_projection", width, None)
        image_embed = self.visual.proj.shape[1]
        if embed != image_embed:
            raise ValueError(
                f"text_projection of {embed} and visual.proj of {image_embed} dimensions are different spaces"
            )
        self.token_embedding = nn.Embedding(tokens, width)
        self.positional_embedding = nn.Parameter(torch.zeros(context, width))
        self.transformer = _Transformer(state, "transformer.", causal=True)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, embed))

    @property
    def width(self) -> int:
        """Dimensions of the common space."""
        return self.text_projection.shape[1]

    @property
    def context(self) -> int:
        """Most tokens of a text."""
        return self.positional_embedding.shape[0]

    def encode_text(self, input_ids: Tensor) -> Tensor:
        """Map token ids (N, T) int64, T at most `context`, to unit vectors (N, D).

        A text's vector is the one of its end token, which has the highest id; what follows it is not seen.
        """
        x = self.token_embedding(input_ids) + self.positional_embedding[: input_ids.shape[1]]
        x = self.ln_final(self.transformer(x))
        ends = x[torch.arange(x.shape[0]), input_ids.argmax(dim=-1)]
        return _unit(ends @ self.text_projection)


class _Visual(nn.Module):
    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        (width,) = sizes_of(state, "visual.ln_pre.weight", None)
        patch, _ = sizes_of(state, "visual.conv1.weight", width, 3, None, None)
        (positions,) = sizes_of(state, "visual.positional_embedding", None, width)
        (embed,) = sizes_of(state, "visual.proj", width, None)
        side = square_side(positions)
        self.grid = (side, side)
        self.size = side * patch
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(positions, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = _Transformer(state, "visual.transformer.", causal=False)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, embed))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Map pixels (B, 3, H, W) to unit vectors (B, D) of the image and (B, P, D) of its patches.

        A patch goes through the final norm and the projection, as the class token does; it was not trained
        to.
        """
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(patches.shape[0], 1, -1)
        x = torch.cat([first, patches], dim=1) + self.positional_embedding
        x = _unit(self.ln_post(self.transformer(self.ln_pre(x))) @ self.proj)
        return x[:, 0], x[:, 1:]


class _Transformer(nn.Module):
    def __init__(self, state: Mapping[str, Tensor], stem: str, *, causal: bool) -> None:
        super().__init__()
        stem = f"{stem}resblocks."
        (width,) = sizes_of(state, f"{stem}0.ln_1.weight", None)
        (hidden,) = sizes_of(state, f"{stem}0.mlp.c_fc.weight", None, width)
        if width % HEAD_WIDTH:
            raise ValueError(f"a width of {width} is no multiple of {HEAD_WIDTH}")
        blocks = (_Block(width, hidden, causal=causal) for _ in range(depth(state, stem)))
        self.resblocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.resblocks(x)
        return answer


class _Block(nn.Module):
    def __init__(self, width: int, hidden: int, *, causal: bool) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = _Attention(width, causal=causal)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, hidden))
        self.mlp.add_module("gelu", _QuickGelu())
        self.mlp.add_module("c_proj", nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        answer: Tensor = x + self.mlp(self.ln_2(x))
        return answer


class _Attention(nn.Module):
    """Self-attention with the names of torch's ``MultiheadAttention``, in steps that can be exported."""

    def __init__(self, width: int, *, causal: bool) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        joint = nn.functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        query, key, value = joint.unflatten(-1, (3, -1, HEAD_WIDTH)).permute(2, 0, 3, 1, 4)
        # Keys are scaled before they are turned, as in `onnx_attention`.
        weights = query @ (key * HEAD_WIDTH**-0.5).transpose(-1, -2)
        if self.causal:
            tokens = x.shape[1]
            weights = weights + torch.full((tokens, tokens), _LATER, device=x.device).triu(1)
        mixed = (weights.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
        answer: Tensor = self.out_proj(mixed)
        return answer


class _QuickGelu(nn.Module):
    """CLIP's approximation of GELU, which weights trained with it need."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


def _unit(vectors: Tensor) -> Tensor:
    return nn.functional.normalize(vectors, dim=-1)
