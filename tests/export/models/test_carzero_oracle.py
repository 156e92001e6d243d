"""The torch modules against what the original implementation computed (tests/data/carzero_tiny/README.md)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from promptray.export.checkpoint import load_checkpoint
from promptray.export.models.carzero import CARZero, CARZeroOutput, CARZeroSizes

TINY = Path(__file__).parents[2] / "data" / "carzero_tiny"


@pytest.fixture(scope="module")
def oracle() -> dict[str, np.ndarray]:
    with np.load(TINY / "oracle.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def tokens(oracle: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = {name: torch.from_numpy(oracle[name]).long() for name in names}
    vocabulary = (TINY / "text_model" / "vocab.txt").read_text().split("\n")
    starts_row = torch.tensor(
        [[not vocabulary[i].startswith("##") for i in row] for row in inputs["input_ids"]]
    )
    rows = starts_row.cumsum(dim=1) - 1
    return {**inputs, "word_index": rows.where(inputs["attention_mask"] == 1, -1)}


@pytest.fixture(scope="module")
def model() -> CARZero:
    state = load_checkpoint(TINY / "CARZero_best_model.ckpt")["state_dict"]
    weights = {key.removeprefix("CARZero."): tensor for key, tensor in state.items()}
    weights.pop("text_encoder.model.embeddings.position_ids")  # an index buffer of older transformers
    heads = json.loads((TINY / "text_model" / "config.json").read_text())["num_attention_heads"]
    model = CARZero(CARZeroSizes.from_state_dict(weights, bert_heads=heads)).eval()
    model.load_state_dict(weights)
    return model


@pytest.fixture(scope="module")
def output(model: CARZero, oracle: dict[str, np.ndarray], tokens: dict[str, torch.Tensor]) -> CARZeroOutput:
    with torch.no_grad():
        return model(torch.from_numpy(oracle["images"]), **tokens)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("scores", 2e-5),
        ("logits_i2t", 2e-5),
        ("logits_t2i", 2e-5),
        ("attention_i2t", 1e-6),
        ("attention_t2i", 1e-6),
        ("heatmap14", 1e-6),
    ],
)
def test_output(output: CARZeroOutput, oracle: dict[str, np.ndarray], name: str, tolerance: float) -> None:
    ours = getattr(output, name).numpy()
    assert ours.shape == oracle[name].shape
    np.testing.assert_allclose(ours, oracle[name], rtol=0, atol=tolerance)


def test_image_features(model: CARZero, oracle: dict[str, np.ndarray]) -> None:
    with torch.no_grad():
        rows = model.img_encoder(torch.from_numpy(oracle["images"])).numpy()
    np.testing.assert_allclose(rows[:, 0], oracle["image_global"], rtol=0, atol=2e-5)
    grid = rows[:, 1:].transpose(0, 2, 1).reshape(oracle["image_local"].shape)
    np.testing.assert_allclose(grid, oracle["image_local"], rtol=0, atol=2e-5)


def test_text_features(
    model: CARZero, oracle: dict[str, np.ndarray], tokens: dict[str, torch.Tensor]
) -> None:
    with torch.no_grad():
        sentence, words = model.text_encoder(**tokens)
    np.testing.assert_allclose(sentence.numpy(), oracle["text_global"], rtol=0, atol=2e-6)
    np.testing.assert_allclose(words.mT.numpy(), oracle["text_local"], rtol=0, atol=4e-5)
