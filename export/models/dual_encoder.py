"""open_clip's dual encoder: an image tower of timm and a BERT, under open_clip's own names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from promptray.export.torchvision_guard import ensure_torchvision_imports

ensure_torchvision_imports()

import timm  # noqa: E402 - timm and transformers import torchvision
from timm.layers.mlp import Mlp  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402
from transformers import BertModel  # noqa: E402

from promptray.export.models.tower_shapes import bert_config, plain_vit  # noqa: E402

_TEXT = "text.transformer."
_TRUNK = "visual.trunk."


@dataclass(frozen=True, kw_only=True)
class ImageTower:
    """What the tensors do not tell of the image tower.

    Attributes
    ----------
    timm_name : str
        Architecture, where timm knows it; otherwise a plain ViT is made to the tensors' sizes.
    image_size : int
        Rows and columns of the pixels that it takes.
    pool : {'', 'avg', 'token'}
        Empty: the architecture's own.
    projection : {'linear', 'mlp'}
    projection_bias : bool
    heads : int
        Attention heads of a ViT that timm does not know.
    """

    timm_name: str
    image_size: int
    pool: str
    projection: str
    projection_bias: bool
    heads: int

    @property
    def known_to_timm(self) -> bool:
        """Whether timm has an architecture of this name."""
        return timm.is_model(self.timm_name)


@dataclass(frozen=True, kw_only=True)
class TextTower:
    """What the tensors do not tell of the text tower.

    Attributes
    ----------
    heads : int
    pooler : str
        open_clip's name: ``cls_last_hidden_state_pooler``, ``cls_pooler`` or ``mean_pooler``.
    projection : {'mlp', 'linear', None}
    pad_id : int
        Token id that is not attended to.
    """

    heads: int
    pooler: str
    projection: str | None
    pad_id: int


class DualEncoder(nn.Module):
    """Two towers and a temperature.

    Parameters
    ----------
    state : mapping of str to Tensor
        The published tensors; their shapes give the sizes. They are not loaded.
    image, text : ImageTower, TextTower
        What the shapes do not tell.
    embed_dim : int
        Dimensions of the common space.

    Raises
    ------
    KeyError, IndexError, ValueError, RuntimeError
        For tensors that do not describe such a model.
    """

    def __init__(
        self, state: Mapping[str, Tensor], image: ImageTower, text: TextTower, embed_dim: int
    ) -> None:
        super().__init__()
        self.width = embed_dim
        self.visual = VisualTower(state, image, embed_dim)
        self.text = _Text(state, text, embed_dim)
        self.logit_scale = nn.Parameter(torch.zeros(()))
        if "logit_bias" in state:
            self.logit_bias = nn.Parameter(torch.zeros(()))

    def encode_text(self, input_ids: Tensor) -> Tensor:
        """Map token ids (N, T) int64, padded or not, to unit vectors (N, D)."""
        vectors: Tensor = self.text(input_ids)
        return vectors

    @property
    def bias(self) -> Tensor | None:
        """The learned bias of sigmoid losses, a scalar, where the checkpoint has one."""
        found: Tensor | None = getattr(self, "logit_bias", None)
        return found


class VisualTower(nn.Module):
    """A ViT of timm and a projection.

    Parameters
    ----------
    state : mapping of str to Tensor
        The published tensors, ``visual.*``; their shapes give the sizes. They are not loaded.
    facts : ImageTower
    embed_dim : int

    Raises
    ------
    KeyError, IndexError, ValueError, RuntimeError
        For tensors that do not describe such a tower.
    """

    def __init__(self, state: Mapping[str, Tensor], facts: ImageTower, embed_dim: int) -> None:
        super().__init__()
        self.trunk = _trunk(state, facts)
        width = self.trunk.num_features
        self.head = nn.Sequential()
        if facts.projection == "linear":
            self.head.add_module("proj", nn.Linear(width, embed_dim, bias=facts.projection_bias))
        else:
            hidden = Mlp(width, 2 * embed_dim, out_features=embed_dim, bias=(True, facts.projection_bias))
            self.head.add_module("mlp", hidden)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the pixels that it takes."""
        rows, columns = self.trunk.patch_embed.img_size
        return rows, columns

    @property
    def positions(self) -> int:
        """Rows of its position table."""
        table = self.trunk.pos_embed
        return 0 if table is None else table.shape[1]

    @property
    def heads(self) -> int:
        """Attention heads of its ViT."""
        return cast(Any, self.trunk.blocks[0]).attn.num_heads

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of its patches."""
        rows, columns = self.trunk.patch_embed.grid_size
        return rows, columns

    def embed(self, pixels: Tensor) -> Tensor:
        """Map pixels (B, 3, H, W) to embeddings (B, D), projected and NOT of unit length."""
        return self._project(self.trunk.forward_features(pixels))

    def _project(self, tokens: Tensor) -> Tensor:
        projected: Tensor = self.head(self.trunk.forward_head(tokens, pre_logits=True))
        return projected

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Map pixels (B, 3, H, W) to unit vectors (B, D) of the image and (B, P, D) of its patches.

        A patch goes through the final norm and the projection, as the pooled token does; it was not
        trained to.
        """
        tokens = self.trunk.forward_features(pixels)
        image = self._project(tokens)
        patches = self.head(self.trunk.fc_norm(tokens[:, self.trunk.num_prefix_tokens :]))
        return _unit(image), _unit(patches)


class _Text(nn.Module):
    def __init__(self, state: Mapping[str, Tensor], facts: TextTower, embed_dim: int) -> None:
        super().__init__()
        config = bert_config(state, _TEXT, heads=facts.heads, pad_id=facts.pad_id)
        width = config.hidden_size
        self.transformer = BertModel(config, add_pooling_layer=facts.pooler == "cls_pooler")
        self.pooler = facts.pooler
        self.pad_id = facts.pad_id
        middle = (width + embed_dim) // 2
        self.proj: nn.Module = nn.Identity()
        if facts.projection == "linear":
            self.proj = nn.Linear(width, embed_dim, bias=False)
        elif facts.projection == "mlp":
            self.proj = nn.Sequential(
                nn.Linear(width, middle, bias=False), nn.GELU(), nn.Linear(middle, embed_dim, bias=False)
            )
        elif width != embed_dim:
            raise ValueError(f"a text tower of width {width} needs a projection to {embed_dim}")

    def forward(self, input_ids: Tensor) -> Tensor:
        """Map token ids (N, T) int64, padded or not, to unit vectors (N, D)."""
        mask = (input_ids != self.pad_id).long()
        answer = self.transformer(input_ids=input_ids, attention_mask=mask)
        return _unit(self.proj(self._pool(answer, mask)))

    def _pool(self, answer: object, mask: Tensor) -> Tensor:
        states: Tensor = answer.last_hidden_state  # type: ignore[attr-defined]
        if self.pooler == "cls_pooler":
            pooled: Tensor = answer.pooler_output  # type: ignore[attr-defined]
            return pooled
        if self.pooler == "mean_pooler":
            return (states * mask[..., None]).sum(dim=1) / mask.sum(dim=-1, keepdim=True)
        return states[:, 0]


def _unit(vectors: Tensor) -> Tensor:
    return nn.functional.normalize(vectors, dim=-1)


def _trunk(state: Mapping[str, Tensor], facts: ImageTower) -> VisionTransformer:
    """Make the ViT: timm's own of that name, or a plain one of the tensors' sizes."""
    if facts.known_to_timm:
        trunk = _known_trunk(facts)
    else:
        trunk = plain_vit(state, _TRUNK, image_size=facts.image_size, heads=facts.heads)
    if facts.pool:
        # Set after the tower is made, as open_clip does: one made to average has its norm after the pooling.
        trunk.reset_classifier(0, facts.pool)
    return trunk


def _known_trunk(facts: ImageTower) -> VisionTransformer:
    try:
        trunk = timm.create_model(facts.timm_name, pretrained=False, num_classes=0, img_size=facts.image_size)
    except TypeError:  # an architecture that is not made for one image size
        trunk = None
    if not isinstance(trunk, VisionTransformer):
        raise ValueError(f"the image tower {facts.timm_name} is no plain ViT")
    return trunk
