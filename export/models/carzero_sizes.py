"""The sizes of a CARZero model, read off the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from promptray.export.layout import sizes_of
from promptray.export.models.tower_shapes import depth, square_side, vit_sizes

_MLP_HEAD_LINEARS = (0, 3, 6, 9)


@dataclass(frozen=True, kw_only=True)
class CARZeroSizes:
    """Every size of a CARZero model. The defaults are what the original hard-codes or no tensor tells."""

    width: int
    image_size: int
    patch_size: int
    vit_depth: int
    vit_heads: int
    vit_mlp: int
    vocab_size: int
    positions: int
    token_types: int
    bert_depth: int
    bert_heads: int
    bert_mlp: int
    fusion_layers: int = 4
    fusion_ffn: int = 1024
    mlp_widths: tuple[int, int, int] = (1024, 512, 256)
    fusion_heads: int = 4
    word_num: int = 97
    last_n_layers: int = 4

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Tensor], *, bert_heads: int, vit_heads: int | None = None
    ) -> CARZeroSizes:
        """Read the sizes off the tensors' shapes.

        Parameters
        ----------
        state : mapping of str to Tensor
            State dict without the prefix ``"CARZero."``.
        bert_heads : int
            Attention heads of the text model; its ``config.json`` tells, no tensor does.
        vit_heads : int, optional
            Attention heads of the image model; those of the text model when absent, as in the published one.

        Raises
        ------
        ValueError
            If a tensor whose shape is needed is missing, or has another shape than the others tell.
        """
        vit, bert, fusion = "img_encoder.model.", "text_encoder.model.", "fusion_module."
        image = vit_sizes(state, vit)
        width = image.width

        def rows(key: str, columns: int = width) -> int:
            return sizes_of(state, key, None, columns)[0]

        widths = [width]
        for linear in _MLP_HEAD_LINEARS[:3]:
            widths.append(rows(f"{fusion}mlp_head.{linear}.weight", widths[-1]))
        return cls(
            width=width,
            image_size=image.patch * square_side(image.positions),
            patch_size=image.patch,
            vit_depth=depth(state, f"{vit}blocks."),
            vit_heads=bert_heads if vit_heads is None else vit_heads,
            vit_mlp=image.mlp,
            vocab_size=rows(f"{bert}embeddings.word_embeddings.weight"),
            positions=rows(f"{bert}embeddings.position_embeddings.weight"),
            token_types=rows(f"{bert}embeddings.token_type_embeddings.weight"),
            bert_depth=depth(state, f"{bert}encoder.layer."),
            bert_heads=bert_heads,
            bert_mlp=rows(f"{bert}encoder.layer.0.intermediate.dense.weight"),
            fusion_layers=depth(state, f"{fusion}decoder.layers."),
            fusion_ffn=rows(f"{fusion}decoder.layers.0.linear1.weight"),
            mlp_widths=(widths[1], widths[2], widths[3]),
        )
