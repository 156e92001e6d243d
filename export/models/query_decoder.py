"""A decoder whose queries are findings: ASG, KAD and MedKLIP share it.

Its layers let the queries look at each other first, so a finding's score depends on which others are asked:
the whole set is one unit. Their order does not matter.

Sources: KAD, Zhang et al., Nature Communications 2023, arXiv 2302.14042; ASG, Li et al., MICCAI 2024,
arXiv 2403.09294.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

from torch import Tensor, nn

from promptray.export.layout import sizes_of
from promptray.export.models.decoder_layer import DecoderLayer
from promptray.export.models.tower_shapes import depth

__all__ = ["HEADS", "QueryDecoder", "query_decoder"]

#: Attention heads of the published decoders, which no tensor tells.
HEADS = 4


class _Stack(nn.Module):
    """The layers, and the norm that ends them, under the names that torch gives them."""

    def __init__(self, layers: list[DecoderLayer], norm: nn.LayerNorm) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = norm

    def each_layer(self) -> Iterator[DecoderLayer]:
        for layer in self.layers:
            yield cast(DecoderLayer, layer)


class QueryDecoder(nn.Module):
    """Queries and patches -> outputs and attention of each query.

    Parameters
    ----------
    width : int
        Of queries and patches.
    heads, layers, ffn : int
        The published ones have 4 heads, 4 layers and 1024.
    outputs : int
        Numbers given for each query: ASG 1 (a logit), KAD and MedKLIP 2 (absent, present).
    input_norm : bool
        Whether the last norm also goes over queries and patches before the first layer (KAD, MedKLIP).
    """

    def __init__(
        self, *, width: int, heads: int, layers: int, ffn: int, outputs: int, input_norm: bool
    ) -> None:
        super().__init__()
        self.decoder_norm = nn.LayerNorm(width)  # published twice, once as the stack's own
        self.decoder = _Stack(
            [DecoderLayer(width, heads, ffn, 0.0) for _ in range(layers)], self.decoder_norm
        )
        self.mlp_head = nn.Sequential(nn.Linear(width, outputs))
        self.input_norm = input_norm

    def forward(self, patches: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Decode.

        Parameters
        ----------
        patches : Tensor, (B, P, width)
        queries : Tensor, (N, width)
            The whole set; one more or one less changes the outputs of all.

        Returns
        -------
        outputs : Tensor, (B, N, outputs)
        attention : Tensor, (B, N, P)
            Of the last layer on the patches, mean over heads; each row sums to 1.
        """
        if self.input_norm:
            patches, queries = self.decoder_norm(patches), self.decoder_norm(queries)
        x = queries[None]  # the first exchange has seen no image: it is done once for all
        for layer in self.decoder.each_layer():
            x, attention = layer.read(layer.exchange(x), *layer.multihead_attn.keys_values(patches))
        return self.mlp_head(self.decoder_norm(x)), attention


def query_decoder(state: Mapping[str, Tensor], stem: str, *, input_norm: bool) -> QueryDecoder:
    """Make the decoder whose tensors follow `stem` (see :class:`QueryDecoder`).

    Raises
    ------
    ValueError
        For tensors that do not describe one.
    """
    (width,) = sizes_of(state, f"{stem}decoder_norm.weight", None)
    (outputs,) = sizes_of(state, f"{stem}mlp_head.0.weight", None, width)
    if width % HEADS:
        raise ValueError(f"{HEADS} attention heads do not divide a width of {width}")
    return QueryDecoder(
        width=width,
        heads=HEADS,
        layers=depth(state, f"{stem}decoder.layers."),
        ffn=sizes_of(state, f"{stem}decoder.layers.0.linear1.weight", None, width)[0],
        outputs=outputs,
        input_norm=input_norm,
    )
