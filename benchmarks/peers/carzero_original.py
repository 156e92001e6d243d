"""CARZero scored as its authors' code does: image after image, with nothing of a prompt kept.

Towers, weights and layers are those of ``promptray.export.models.carzero``, in the published layout. What
this file adds is what the original does in a call: every prompt has its 97 tokens, padding included, and its
98 memory rows; both directions, keys and values of all prompts too, are computed for every image. Attention
is torch's own ``nn.MultiheadAttention`` with sequences first, as there. Where the original is slower than it
has to be, as when it adds up word pieces in Python, this is not.

Source: the published implementation (Apache-2.0), methods ``dqn_shot_classification`` and ``process_text``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from promptray.export.checkpoint import load_checkpoint
from promptray.export.families.carzero_checkpoint import published_state
from promptray.export.models.carzero import CARZero
from promptray.export.models.carzero_sizes import CARZeroSizes
from promptray.export.models.decoder_layer import DecoderLayer
from promptray.export.tokenizer import read_bert_folder
from promptray.runtime.text import TextEncoder

FIXTURE = Path(__file__).parents[2] / "tests" / "data" / "carzero_tiny"
#: What the original and a float32 computation of it may differ by (the fixture's README).
TOLERANCE = 2e-5


@dataclass(frozen=True)
class Tokens:
    """Prompts as the original's tokenizer gives them: int64 (N, 97) each, and the row of every token."""

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor
    word_index: Tensor


class Original:
    """The model of a published checkpoint.

    Parameters
    ----------
    checkpoint, text_model : Path
        As published.
    """

    def __init__(self, checkpoint: Path, text_model: Path) -> None:
        state = published_state(load_checkpoint(checkpoint), checkpoint.name)
        text = read_bert_folder(text_model)
        self._model = CARZero(CARZeroSizes.from_state_dict(state, bert_heads=text.heads), dropout=0.0)
        missing = self._model.load_state_dict(state, strict=False).missing_keys
        assert not missing, f"the checkpoint has no {missing}"
        self._model.eval().requires_grad_(False)
        layers = list(self._model.fusion_module.decoder.each_layer())
        self._layers = [(layer, _attention_of(layer)) for layer in layers]
        self._continues = torch.tensor([piece.startswith("##") for piece in text.vocabulary])
        self._end = text.vocabulary.index("[SEP]")

    def tokens(self, input_ids: Tensor, attention_mask: Tensor) -> Tokens:
        """Tell which row of its prompt each token is added to: a "##" piece to that of the piece before."""
        after = (input_ids == self._end).cumsum(dim=1) - (input_ids == self._end).long()
        rows = (~self._continues[input_ids]).cumsum(dim=1) - 1
        index = rows.masked_fill((after > 0) | (attention_mask == 0), -1)
        return Tokens(input_ids, attention_mask, torch.zeros_like(input_ids), index)

    def process_text(self, encoder: TextEncoder, prompts: Sequence[str]) -> Tokens:
        """Tokenize prompts, padded to the context."""
        context = self._model.sizes.word_num
        ids = torch.zeros((len(prompts), context), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for number, prompt in enumerate(prompts):
            own = torch.from_numpy(encoder.encode(prompt).arrays["input_ids"][0])
            ids[number, : len(own)] = own
            mask[number, : len(own)] = 1
        return self.tokens(ids, mask)

    @torch.inference_mode()
    def encode_text(self, tokens: Tokens) -> Tensor:
        """Return the prompts' memories (98, N, width): sentence, words, zero rows."""
        sentence, words = self._model.text_encoder(
            tokens.input_ids, tokens.attention_mask, tokens.token_type_ids, tokens.word_index
        )
        return torch.cat([sentence[None], words.transpose(0, 1)])

    @torch.inference_mode()
    def score_encoded(self, pixels: NDArray[np.float32], memories: Tensor) -> NDArray[np.float32]:
        """Score images (B, 3, H, W), one after the other, against encoded prompts; (B, N)."""
        found = []
        for image in torch.from_numpy(pixels).split(1):
            rows = self._model.img_encoder(image).transpose(0, 1)
            by_prompt = self._fuse(rows, memories[:1].transpose(0, 1))
            by_image = self._fuse(memories, rows[:1].expand(-1, memories.shape[1], -1))
            found.append((by_prompt.T + by_image) / 2)
        return torch.cat(found).numpy()

    def _fuse(self, memory: Tensor, queries: Tensor) -> Tensor:
        """Score queries (K, G, width) over a memory (S, G, width); (K, G)."""
        fusion = self._model.fusion_module
        memory, x = fusion.decoder_norm(memory), fusion.decoder_norm(queries)
        for layer, attention in self._layers:
            x = x + attention(layer.norm2(x), memory, memory)[0]
            x = x + layer.feed_forward(x)
        logits: Tensor = fusion.mlp_head(fusion.decoder_norm(x)).squeeze(-1)
        return logits

    def score(self, pixels: NDArray[np.float32], tokens: Tokens) -> NDArray[np.float32]:
        """Score as the original is called: the texts are encoded, then the images scored."""
        return self.score_encoded(pixels, self.encode_text(tokens))


def _attention_of(layer: DecoderLayer) -> nn.MultiheadAttention:
    """Return torch's attention with a layer's weights, whose names are torch's."""
    own = layer.multihead_attn
    attention = nn.MultiheadAttention(own.out_proj.in_features, own.heads)
    attention.load_state_dict(own.state_dict())
    return attention.eval().requires_grad_(False)


def fixture_error() -> float:
    """Return the largest difference to the scores of the original's own code, on the committed fixture."""
    oracle = np.load(FIXTURE / "oracle.npz")
    original = Original(FIXTURE / "CARZero_best_model.ckpt", FIXTURE / "text_model")
    ids, mask = (torch.from_numpy(oracle[name]) for name in ("input_ids", "attention_mask"))
    found = original.score(oracle["images"], original.tokens(ids, mask))
    return float(np.abs(found - oracle["scores"]).max())
