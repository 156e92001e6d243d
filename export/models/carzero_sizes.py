"""The sizes of a CARZero model, read off the shapes of its tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from promptray.export.models.tower_shapes import shape_of

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
        KeyError, ValueError
            If a tensor whose shape is needed is missing, or has another number of dimensions.
        """

        def shape(key: str, rank: int = 2) -> tuple[int, ...]:
            return shape_of(state, key, rank)

        def depth(stem: str) -> int:
            return len({key[len(stem) :].split(".")[0] for key in state if key.startswith(stem)})

        vit, bert, fusion = "img_encoder.model.", "text_encoder.model.", "fusion_module."
        width, _, patch_size, _ = shape(vit + "patch_embed.proj.weight", 4)
        patches_per_side = math.isqrt(shape(vit + "pos_embed", 3)[1] - 1)
        narrowings = [shape(f"{fusion}mlp_head.{i}.weight")[0] for i in _MLP_HEAD_LINEARS[:3]]
        return cls(
            width=width,
            image_size=patch_size * patches_per_side,
            patch_size=patch_size,
            vit_depth=depth(vit + "blocks."),
            vit_heads=bert_heads if vit_heads is None else vit_heads,
            vit_mlp=shape(vit + "blocks.0.mlp.fc1.weight")[0],
            vocab_size=shape(bert + "embeddings.word_embeddings.weight")[0],
            positions=shape(bert + "embeddings.position_embeddings.weight")[0],
            token_types=shape(bert + "embeddings.token_type_embeddings.weight")[0],
            bert_depth=depth(bert + "encoder.layer."),
            bert_heads=bert_heads,
            bert_mlp=shape(bert + "encoder.layer.0.intermediate.dense.weight")[0],
            fusion_layers=depth(fusion + "decoder.layers."),
            fusion_ffn=shape(fusion + "decoder.layers.0.linear1.weight")[0],
            mlp_widths=(narrowings[0], narrowings[1], narrowings[2]),
        )
