"""ASG as torch modules, in the key layout of its published training script.

The arithmetic is the original's, done plainly: batch norms apart, reports padded to their full length. What
the graphs fold is in `ProjectionHead.folded`; what only training uses (region alignment, losses) is not here.

Source: Li et al., "Anatomical Structure-Guided Medical Vision-Language Pre-training", MICCAI 2024,
arXiv 2403.09294.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from promptray.export.layout import sizes_of
from promptray.export.torchvision_guard import ensure_torchvision_imports

ensure_torchvision_imports()

from timm.models.resnet import Bottleneck, ResNet  # noqa: E402 - timm and transformers import torchvision
from transformers import BertModel  # noqa: E402

from promptray.export.models.tower_shapes import bert_config, plain_vit, square_side, vit_sizes  # noqa: E402

State = Mapping[str, Tensor]
#: Token positions of a report, [CLS] and [SEP] among them, and of a tag.
REPORT_TOKENS, TAG_TOKENS = 112, 128
_RESNET_SIZE = 299


class ProjectionHead(nn.Module):
    """Linear, batch norm, ReLU, linear, batch norm without weights, unit length.

    Parameters
    ----------
    state : mapping of str to Tensor
        The shapes of ``<stem>head.{0,3}.weight`` tell the sizes.
    stem : str
    local : bool
        Of positions (B, P, width), whose published layers are convolutions of one pixel, or of vectors
        (B, width).
    """

    def __init__(self, state: State, stem: str, *, local: bool) -> None:
        super().__init__()
        kernel = (1,) if local else ()
        (hidden,), (out,) = (sizes_of(state, f"{stem}head.{n}.running_mean", None) for n in (1, 4))
        (width,) = sizes_of(state, f"{stem}head.0.weight", hidden, None, *kernel)
        sizes_of(state, f"{stem}head.3.weight", out, hidden, *kernel)

        def layer(into: int, out: int) -> nn.Module:
            return nn.Conv1d(into, out, 1) if local else nn.Linear(into, out)

        self.head = nn.Sequential(
            layer(width, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            layer(hidden, out),
            nn.BatchNorm1d(out, affine=False),
        )
        self.local = local
        self.width, self.out = width, out

    def forward(self, x: Tensor) -> Tensor:
        """Project to unit vectors, (B, out) or (B, P, out)."""
        if self.local:
            return F.normalize(self.head(x.transpose(1, 2)).transpose(1, 2), dim=-1)
        return F.normalize(self.head(x), dim=-1)

    def folded(self) -> nn.Sequential:
        """Return two linear layers with a ReLU between: the same, of (..., width), before unit length.

        In evaluation a batch norm is ``weight * (x - mean) / sqrt(variance + eps) + bias`` with constants, so
        the linear layer before it takes it in: its weight times ``s = weight / sqrt(variance + eps)`` row
        by row, its bias ``(bias - mean) * s + norm's bias``. Computed in doubles.
        """
        first, first_norm, _, last, last_norm = self.head
        return nn.Sequential(_fold(first, first_norm), nn.ReLU(), _fold(last, last_norm)).eval()


def _fold(layer: Any, norm: Any) -> nn.Linear:
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = torch.zeros_like(scale)
    if norm.affine:
        scale, shift = norm.weight.double() * scale, norm.bias.double()
    weight = layer.weight.detach().double().flatten(1) * scale[:, None]
    folded = nn.Linear(weight.shape[1], weight.shape[0])
    folded.weight = nn.Parameter(weight.float(), requires_grad=False)
    bias = (layer.bias.double() - norm.running_mean.double()) * scale + shift
    folded.bias = nn.Parameter(bias.detach().float(), requires_grad=False)
    return folded


class ImageEncoder(nn.Module):
    """A tower with its two projection heads.

    Attributes
    ----------
    size : int
        Rows and columns of the pixels that it takes.
    grid : (int, int)
        Rows and columns of its positions.
    """

    size: int
    grid: tuple[int, int]

    def __init__(self, state: State, stem: str) -> None:
        super().__init__()
        self.global_embed = ProjectionHead(state, f"{stem}global_embed.", local=False)
        self.local_embed = ProjectionHead(state, f"{stem}local_embed.", local=True)

    def features(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Map pixels (B, 3, size, size) to vectors of the image (B, G) and its positions (B, P, L)."""
        raise NotImplementedError


class ViTEncoder(ImageEncoder):
    """ViT-B/16 as timm has it: the class token and the patches, after the final norm."""

    def __init__(self, state: State, stem: str, heads: int) -> None:
        super().__init__(state, stem)
        sizes = vit_sizes(state, f"{stem}model.")
        side = square_side(sizes.positions)
        self.size = side * sizes.patch
        self.grid = (side, side)
        self.model = plain_vit(state, f"{stem}model.", image_size=self.size, heads=heads)

    def features(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the class token and the patches (see `ImageEncoder.features`)."""
        tokens = self.model.forward_features(pixels)
        return tokens[:, 0], tokens[:, 1:]


class ResNetEncoder(ImageEncoder):
    """ResNet-50 on enlarged pixels: the last stage's mean, and the positions of the stage before it."""

    size, grid = 224, (19, 19)

    def __init__(self, state: State, stem: str) -> None:
        super().__init__(state, stem)
        bottleneck: Any = Bottleneck  # timm's annotation asks for an instance
        self.model = ResNet(bottleneck, (3, 4, 6, 3), num_classes=0)

    def features(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean of stage 4 and the positions of stage 3 (see `ImageEncoder.features`)."""
        net: Any = self.model
        x = F.interpolate(pixels, size=(_RESNET_SIZE, _RESNET_SIZE), mode="bilinear", align_corners=True)
        x = net.maxpool(net.act1(net.bn1(net.conv1(x))))
        positions = net.layer3(net.layer2(net.layer1(x)))
        return net.layer4(positions).mean(dim=(2, 3)), positions.flatten(2).transpose(1, 2)


def image_encoder(state: State, stem: str, *, heads: int) -> ImageEncoder:
    """Make the image side whose tensors follow `stem`: a ResNet has a ``conv1``.

    Raises
    ------
    KeyError, IndexError, ValueError, AssertionError
        For tensors that do not describe one.
    """
    if f"{stem}model.conv1.weight" in state:
        return ResNetEncoder(state, stem)
    return ViTEncoder(state, stem, heads)


class _NoTokenTypes(nn.Module):
    """In the place of the table that the published report encoder does not have."""

    def forward(self, token_types: Tensor) -> Tensor:
        return torch.zeros((), dtype=torch.float32, device=token_types.device)


class ReportEncoder(nn.Module):
    """A BERT that sees no order, with its two projection heads.

    The published script hands the token types to a BERT whose third argument is the positions, so every token
    has position 0, and the table of token types does not exist.
    """

    def __init__(self, state: State, stem: str, heads: int) -> None:
        super().__init__()
        self.model = BertModel(bert_config(state, f"{stem}model.", heads=heads), add_pooling_layer=False)
        self.model.embeddings.token_type_embeddings = _NoTokenTypes()  # type: ignore[assignment]
        self.global_embed = ProjectionHead(state, f"{stem}global_embed.", local=False)
        self.local_embed = ProjectionHead(state, f"{stem}local_embed.", local=True)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Map token ids (N, T) int64 to their states (N, T, width)."""
        zeros = torch.zeros_like(input_ids)
        found = self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=zeros, position_ids=zeros
        )
        states: Tensor = found.last_hidden_state
        return states


def tag_encoder(state: State, stem: str, heads: int) -> BertModel:
    """Make the frozen BERT, with ordinary positions, whose [CLS] states are the tags' queries."""
    return BertModel(bert_config(state, stem, heads=heads), add_pooling_layer=False)
