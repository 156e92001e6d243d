"""A pre-norm decoder layer in torch's key layout, whose attention can be taken apart and kept."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PackedAttention(nn.Module):
    """Multi-head attention with torch's packed weights, in three steps that can be taken apart.

    ``query`` and ``keys_values`` each depend on one side only, so a caller can keep what does not change.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def query(self, x: Tensor) -> Tensor:
        """Project queries (G, K, width) to (G, heads, K, width / heads)."""
        width = x.shape[-1]
        return self._split(F.linear(x, self.in_proj_weight[:width], self.in_proj_bias[:width]))

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Project a memory (G, S, width) to keys and values, each (G, heads, S, width / heads)."""
        width = memory.shape[-1]
        packed = F.linear(memory, self.in_proj_weight[width:], self.in_proj_bias[width:])
        keys, values = packed.chunk(2, dim=-1)
        return self._split(keys), self._split(values)

    def attend(
        self, query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attend, after projection; ``bias`` is added to the attention logits (G, heads, K, S).

        Returns
        -------
        output : Tensor, (G, K, width)
        weights : Tensor, (G, K, S)
            Mean over heads.
        """
        logits = (query / math.sqrt(query.shape[-1])) @ keys.transpose(-2, -1)
        weights = (logits if bias is None else logits + bias).softmax(dim=-1)
        output = (self.dropout(weights) @ values).transpose(1, 2).flatten(2)
        return self.out_proj(output), weights.mean(dim=1)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class DecoderLayer(nn.Module):
    """Queries that look at each other, then at a memory, then at themselves.

    The keys are those of ``torch.nn.TransformerDecoderLayer``; each step has its norm before it and is added
    to the queries.

    Parameters
    ----------
    width, heads, ffn : int
        Of queries and memory; of both attentions; of the feed-forward network.
    dropout : float
        In training mode only.
    """

    def __init__(self, width: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = PackedAttention(width, heads, dropout)
        self.multihead_attn = PackedAttention(width, heads, dropout)
        self.linear1 = nn.Linear(width, ffn)
        self.linear2 = nn.Linear(ffn, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def exchange(self, x: Tensor) -> Tensor:
        """Let queries (G, K, width) look at each other."""
        normed = self.norm1(x)
        attended, _ = self.self_attn.attend(self.self_attn.query(normed), *self.self_attn.keys_values(normed))
        return x + self.dropout(attended)

    def read(self, x: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Update queries (G, K, width) from projected keys and values; also give the attention (G, K, S)."""
        attended, weights = self.multihead_attn.attend(self.multihead_attn.query(self.norm2(x)), keys, values)
        x = x + self.dropout(attended)
        return x + self.feed_forward(x), weights

    def feed_forward(self, x: Tensor) -> Tensor:
        """Give the residual of the feed-forward half, its norm included."""
        return self.dropout(self.linear2(self.dropout(F.relu(self.linear1(self.norm3(x))))))
