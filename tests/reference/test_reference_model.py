"""The committed reference model: its layout, its results, and a model card that says the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from promptray.export.checkpoint import load_checkpoint
from promptray.export.families.base import LoadedModel
from promptray.export.families.carzero import FAMILY
from promptray.runtime.bundle.image_rules import Door
from promptray.runtime.door import open_picture
from promptray.runtime.preprocess import preprocess
from promptray.runtime.text import TextEncoder
from reference.card import BEGIN, END, results_section, update_card
from reference.radiographs import ATTRIBUTION

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "reference"
CHECKPOINT = FOLDER / "carzero_reference.ckpt"


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return FAMILY.load(CHECKPOINT, FOLDER / "text_model", {})


def test_the_checkpoint_is_small_and_laid_out_as_published() -> None:
    content = load_checkpoint(CHECKPOINT)
    assert CHECKPOINT.stat().st_size <= 10_000_000
    assert set(content) == {
        "epoch",
        "global_step",
        "pytorch-lightning_version",
        "state_dict",
        "hyper_parameters",
    }
    assert all(key.startswith("CARZero.") for key in content["state_dict"])
    assert all(tensor.dtype == torch.float32 for tensor in content["state_dict"].values())


def test_it_tells_the_samples_apart_by_prompt(model: LoadedModel) -> None:
    """It was trained on them, so this shows that the weights and the chain fit, and nothing more."""
    assert model.text is not None
    encoder = TextEncoder(model.text.rule, model.text.tokenizer)
    prompts = [encoder.encode_finding([text]) for text in ("There is pneumonia.", "There is no pneumonia.")]
    paths = sorted((ROOT / "examples" / "samples").glob("*.png"))
    door, facts = Door(modalities=["DX"]), model.preprocessing
    pixels = [
        preprocess(open_picture(path, door, facts.greyscale, modality="DX").grey, facts).pixels
        for path in paths
    ]
    logits = model.heads[0].reference(torch.from_numpy(np.concatenate(pixels)), prompts).logits
    sick = torch.tensor([not path.name.startswith("normal") for path in paths])
    plain, negated = torch.from_numpy(logits).unbind(dim=1)
    assert plain[sick].mean() > plain[~sick].mean() + 1
    assert negated[sick].mean() < negated[~sick].mean() - 1


def test_the_results_hold_what_is_asked_of_the_model(results: dict[str, Any]) -> None:
    pneumonia = results["results"]["pneumonia against normal"]["pneumonia"]
    assert pneumonia["trained"]["value"] >= 0.85
    assert pneumonia["held_out"]["value"] >= 0.80
    assert (pneumonia["trained"]["images"], pneumonia["trained"]["patients"]) == (144, 123)
    shuffled = results["results"]["shuffled prompts"]
    assert shuffled["low"] < 0.5 < shuffled["high"]


def test_the_card_says_what_the_results_say(results: dict[str, Any]) -> None:
    card = (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")
    section = card.split(BEGIN)[1].split(END)[0].strip()
    assert section == results_section(results)


def test_the_card_attributes_and_warns() -> None:
    card = (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8").replace("\n", " ")
    assert ATTRIBUTION in card
    assert "not a medical device" in card
    assert "CC BY 4.0" in card


def test_a_card_without_marks_is_refused(tmp_path: Path, results: dict[str, Any]) -> None:
    card = tmp_path / "card.md"
    card.write_text("# no marks\n", encoding="utf-8")
    with pytest.raises(ValueError, match="lacks the marks"):
        update_card(card, results)
