"""CARZero as torch modules, in the key layout of its published checkpoint.

``CARZero(sizes).state_dict()`` has the keys of the published file after their prefix ``"CARZero."``.
The arithmetic here is the original's, done plainly: every prompt's 98 memory rows, its zero rows included,
and both directions computed anew for every image. It is the reference for the exported graphs, and what is
trained; what can be cached or collapsed is the exporter's business, which reuses these submodules in pieces.

Source: Lai et al., "CARZero: Cross-Attention Alignment for Radiology Zero-Shot Classification", CVPR 2024,
and the published implementation at github.com/laihaoran/CARZero (Apache-2.0), commit fa4e09c.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from promptray.export.models.carzero_sizes import CARZeroSizes
from promptray.export.models.decoder_layer import DecoderLayer
from promptray.export.torchvision_guard import ensure_torchvision_imports

ensure_torchvision_imports()

from timm.models.vision_transformer import VisionTransformer  # noqa: E402
from transformers import BertConfig, BertModel  # noqa: E402

__all__ = ["CARZero", "CARZeroOutput", "CARZeroSizes"]


@dataclass(frozen=True)
class CARZeroOutput:
    """What one pass over B images and N prompts gives (all float32).

    Attributes
    ----------
    scores : Tensor, (B, N)
        Mean of the two logits: the published score. Not calibrated.
    logits_i2t : Tensor, (B, N)
        Memory is the image, query is the prompt.
    logits_t2i : Tensor, (B, N)
        Memory is the prompt, query is the image.
    attention_i2t : Tensor, (layers, B, N, 1 + patches)
        Mean over heads; index 0 is the image's global row.
    attention_t2i : Tensor, (layers, N, B, 1 + word_num)
        Mean over heads; index 0 is the sentence row, then [CLS], words, [SEP], zero rows.
    """

    scores: Tensor
    logits_i2t: Tensor
    logits_t2i: Tensor
    attention_i2t: Tensor
    attention_t2i: Tensor

    @property
    def heatmap14(self) -> Tensor:
        """Where each prompt looked, (B, N, side, side): mean over layers, global row dropped."""
        patches = self.attention_i2t[..., 1:].mean(dim=0)
        side = math.isqrt(patches.shape[-1])
        return patches.unflatten(-1, (side, side))


class ImageEncoder(nn.Module):
    """A ViT whose class token and patches both are used, after the final norm."""

    def __init__(self, sizes: CARZeroSizes) -> None:
        super().__init__()
        self.model = VisionTransformer(
            img_size=sizes.image_size,
            patch_size=sizes.patch_size,
            embed_dim=sizes.width,
            depth=sizes.vit_depth,
            num_heads=sizes.vit_heads,
            mlp_ratio=sizes.vit_mlp / sizes.width,
            num_classes=0,
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (B, 3, H, W) to rows (B, 1 + patches, width), the global row first."""
        return self.model.forward_features(pixels)


class TextEncoder(nn.Module):
    """A BERT whose last layers are summed and whose word pieces are added up to words."""

    def __init__(self, sizes: CARZeroSizes) -> None:
        super().__init__()
        self.word_num = sizes.word_num
        self.last_n_layers = sizes.last_n_layers
        config = BertConfig(
            vocab_size=sizes.vocab_size,
            hidden_size=sizes.width,
            num_hidden_layers=sizes.bert_depth,
            num_attention_heads=sizes.bert_heads,
            intermediate_size=sizes.bert_mlp,
            max_position_embeddings=sizes.positions,
            type_vocab_size=sizes.token_types,
            attn_implementation="eager",  # type: ignore[call-arg]
        )
        self.model = BertModel(config, add_pooling_layer=True)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, word_index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Encode N prompts of T tokens (all four inputs int64, (N, T)).

        ``word_index`` is the row of each token: [CLS] 0, a "##" piece that of the piece before, padding -1.

        Returns
        -------
        sentence : Tensor, (N, width)
            Sum of the rows over ``word_num``, not over the number of words: as the original does.
        words : Tensor, (N, word_num, width)
            The rows, then zeros.
        """
        states = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            output_hidden_states=True,
        ).hidden_states
        tokens = torch.stack(states[-self.last_n_layers :]).sum(dim=0)
        rows = torch.arange(self.word_num, device=word_index.device)
        belongs = (word_index[:, None, :] == rows[None, :, None]).to(tokens.dtype)
        words = belongs @ tokens
        return words.sum(dim=1) / self.word_num, words


class Decoder(nn.Module):
    """The stack of layers, and the norm that ends it. Queries never see each other.

    So ``self_attn`` and ``norm1`` of the layers, which the published file has, take no part.
    """

    def __init__(self, sizes: CARZeroSizes, norm: nn.LayerNorm, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(sizes.width, sizes.fusion_heads, sizes.fusion_ffn, dropout)
            for _ in range(sizes.fusion_layers)
        )
        self.norm = norm

    def each_layer(self) -> Iterator[DecoderLayer]:
        """Yield the layers in order (a ModuleList does not know what it holds)."""
        for layer in self.layers:
            yield cast(DecoderLayer, layer)

    def forward(self, queries: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Decode normed queries (G, K, width) over a normed memory (G, S, width), which no layer changes."""
        attention = []
        for layer in self.each_layer():
            queries, weights = layer.read(queries, *layer.multihead_attn.keys_values(memory))
            attention.append(weights)
        return self.norm(queries), torch.stack(attention)


class Fusion(nn.Module):
    """Queries look at a memory; a small network makes one logit of each. Shared by both directions."""

    def __init__(self, sizes: CARZeroSizes, dropout: float) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # published, never read
        self.decoder_norm = nn.LayerNorm(sizes.width)
        self.decoder = Decoder(sizes, self.decoder_norm, dropout)
        widths = (sizes.width, *sizes.mlp_widths)
        hidden = [
            step
            for before, after in itertools.pairwise(widths)
            for step in (nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout))
        ]
        self.mlp_head = nn.Sequential(*hidden, nn.Linear(widths[-1], 1))

    def forward(self, memory: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Score queries (G, K, width) over a memory (G, S, width).

        Returns
        -------
        logits : Tensor, (G, K)
        attention : Tensor, (layers, G, K, S)
        """
        decoded, attention = self.decoder(self.decoder_norm(queries), self.decoder_norm(memory))
        return self.mlp_head(decoded).squeeze(-1), attention


class CARZero(nn.Module):
    """The whole model. ``dropout`` acts in the fusion module, in training mode only."""

    def __init__(self, sizes: CARZeroSizes, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.sizes = sizes
        self.img_encoder = ImageEncoder(sizes)
        self.text_encoder = TextEncoder(sizes)
        self.fusion_module = Fusion(sizes, dropout)

    def forward(
        self,
        pixels: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor,
        word_index: Tensor,
    ) -> CARZeroOutput:
        """Score images (B, 3, H, W) float32 against prompts (N, T) int64 (see `TextEncoder.forward`)."""
        image = self.img_encoder(pixels)
        sentence, words = self.text_encoder(input_ids, attention_mask, token_type_ids, word_index)
        return self.fuse(image, sentence, words)

    def fuse(self, image: Tensor, sentence: Tensor, words: Tensor) -> CARZeroOutput:
        """Score the features of both sides in both directions.

        Parameters
        ----------
        image : Tensor, (B, 1 + patches, width)
        sentence : Tensor, (N, width)
        words : Tensor, (N, word_num, width)
        """
        images, prompts = len(image), len(sentence)
        memory = torch.cat([sentence[:, None], words], dim=1)
        i2t, attention_i2t = self.fusion_module(image, sentence.expand(images, -1, -1))
        t2i, attention_t2i = self.fusion_module(memory, image[:, 0].expand(prompts, -1, -1))
        logits_t2i = t2i.transpose(0, 1)
        return CARZeroOutput((i2t + logits_t2i) / 2, i2t, logits_t2i, attention_i2t, attention_t2i)
