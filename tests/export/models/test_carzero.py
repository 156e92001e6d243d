"""The torch modules against the original implementation's tensors and key layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from promptray.export.models.carzero import CARZero, CARZeroSizes

TINY = Path(__file__).parents[2] / "data" / "carzero_tiny"


def published_shapes() -> dict[str, list[int]]:
    keys = json.loads((TINY / "state_dict.json").read_text())["keys"]
    return {key.removeprefix("CARZero."): shape for key, (shape, _) in keys.items()}


@pytest.fixture(scope="module")
def model() -> CARZero:
    torch.manual_seed(0)
    empty = {key: torch.empty(shape, device="meta") for key, shape in published_shapes().items()}
    return CARZero(CARZeroSizes.from_state_dict(empty, bert_heads=4)).eval()


def prompts(words_each: list[int], *, length: int) -> dict[str, torch.Tensor]:
    """Make prompts of single-piece words, padded to a length."""
    ids = torch.zeros(len(words_each), length, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    word_index = torch.full_like(ids, -1)
    for row, words in enumerate(words_each):
        ids[row, : words + 2] = 7 + torch.arange(words + 2)
        mask[row, : words + 2] = 1
        word_index[row, : words + 2] = torch.arange(words + 2)
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": torch.zeros_like(ids),
        "word_index": word_index,
    }


def test_keys_and_shapes_are_the_published_ones(model: CARZero) -> None:
    ours = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    assert ours == published_shapes()


def test_sizes_are_read_off_the_tensors(model: CARZero) -> None:
    assert model.sizes == CARZeroSizes(
        width=64,
        image_size=224,
        patch_size=16,
        vit_depth=3,
        vit_heads=4,
        vit_mlp=256,
        vocab_size=400,
        positions=512,
        token_types=2,
        bert_depth=5,
        bert_heads=4,
        bert_mlp=160,
    )


def test_the_decoder_ends_with_the_norm_it_begins_with(model: CARZero) -> None:
    assert model.fusion_module.decoder.norm is model.fusion_module.decoder_norm


def test_padding_a_prompt_changes_nothing(model: CARZero) -> None:
    pixels = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        short = model(pixels, **prompts([0, 1, 8], length=10)).scores
        padded = model(pixels, **prompts([0, 1, 8], length=97)).scores
    assert torch.allclose(short, padded, rtol=0, atol=2e-6)


def test_word_pieces_are_added_to_the_row_of_their_word(model: CARZero) -> None:
    tokens = prompts([3], length=5)
    split = {**tokens, "word_index": torch.tensor([[0, 1, 1, 2, 3]])}
    with torch.no_grad():
        sentence, rows = model.text_encoder(**tokens)
        joined_sentence, joined = model.text_encoder(**split)
    assert torch.allclose(joined[0, 1], rows[0, 1] + rows[0, 2], rtol=0, atol=1e-5)
    assert torch.equal(joined[0, 2:4], rows[0, 3:5])
    assert not joined[0, 4:].any()
    assert torch.allclose(joined_sentence, sentence, rtol=0, atol=1e-6)


def test_a_repeated_memory_row_equals_one_row_with_the_log_of_its_count(model: CARZero) -> None:
    attention = model.fusion_module.decoder.layers[0].multihead_attn
    memory = torch.randn(1, 5, 64)
    repeated = torch.cat([memory, memory[:, -1:].expand(1, 6, 64)], dim=1)
    bias = torch.tensor([1.0, 1.0, 1.0, 1.0, 7.0]).log()
    with torch.no_grad():
        query = attention.query(torch.randn(1, 3, 64))
        plain, _ = attention.attend(query, *attention.keys_values(repeated))
        weighted, _ = attention.attend(query, *attention.keys_values(memory), bias)
    assert torch.allclose(plain, weighted, rtol=0, atol=1e-6)


def test_dropout_acts_in_training_only(model: CARZero) -> None:
    pixels, tokens = torch.randn(1, 3, 224, 224), prompts([4], length=6)
    with torch.no_grad():
        assert torch.equal(model(pixels, **tokens).scores, model(pixels, **tokens).scores)
        model.fusion_module.train()
        assert not torch.equal(model(pixels, **tokens).scores, model(pixels, **tokens).scores)
        model.eval()
