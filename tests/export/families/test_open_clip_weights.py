"""Weights of dual encoders: every way to store them is read, and what does not fit is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from promptray.export.checkpoint import load_checkpoint
from promptray.export.families import family
from promptray.export.families.base import LoadedModel
from promptray.export.families.open_clip import FAMILY
from promptray.runtime.errors import BuildError
from promptray.runtime.text import TextEncoder
from tests import open_clip_arithmetic as arithmetic
from tests.open_clip_tiny import FOLDER, LOGIT, TEXTS, UNIT, WEIGHTS, copy_folder, oracle

HEADS = 4


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return FAMILY.load(FOLDER / WEIGHTS, None, {})


@pytest.fixture(scope="module")
def original() -> dict[str, Any]:
    return oracle()


TRUNK, BERT = "visual.trunk.", "text.transformer."
SPOILT: dict[str, tuple[Any, str, str]] = {
    "a key is missing": (
        lambda s: s.pop(TRUNK + "norm.weight"), "layout", "missing visual.trunk.norm.weight",
    ),
    "a key too many": (
        lambda s: s.update({"text.extra.weight": torch.zeros(2)}), "layout", "unexpected text.extra.weight",
    ),
    "a key of another name": (
        lambda s: s.update({"text.proj.1.weight": s.pop("text.proj.2.weight")}),
        "layout", "nearest there: text.proj.1.weight",
    ),
    "another shape": (
        lambda s: s.update({"visual.head.proj.weight": torch.zeros(31, 64)}),
        "layout", "shape of visual.head.proj.weight: expected (32, 64), found (31, 64)",
    ),
    "NaN": (lambda s: s[TRUNK + "norm.bias"].fill_(np.nan), "layout", "not finite: visual.trunk.norm.bias"),
    "a pooler that is not used": (
        lambda s: s.update({BERT + "pooler.dense.bias": torch.zeros(64)}), "layout", "pooler.dense.bias",
    ),
    "another model": (
        lambda s: (s.clear(), s.update({"model.weight": torch.zeros(2)})), "layout", "model.weight",
    ),
    "nothing": (lambda s: s.clear(), "layout", "no tensor of this checkpoint"),
    "no position table": (lambda s: s.pop(TRUNK + "pos_embed"), "layout", "visual.trunk.pos_embed"),
    "no words": (lambda s: s.pop(BERT + "embeddings.word_embeddings.weight"), "layout", "word_embeddings"),
    "no blocks": (
        lambda s: [s.pop(key) for key in list(s) if ".blocks." in key], "layout", "do not describe",
    ),
    "a tensor without size": (
        lambda s: s.update({TRUNK + "pos_embed": torch.zeros(())}), "layout", "do not describe",
    ),
    "a tensor of width 0": (
        lambda s: s.update({TRUNK + "pos_embed": torch.zeros(1, 197, 0)}), "layout", "do not describe",
    ),
    "another table of positions": (
        lambda s: s.update({TRUNK + "pos_embed": torch.zeros(1, 577, 64)}),
        "config", "197 positions for 224 x 224 pixels; found a table of shape (1, 577, 64)",
    ),
    "a scale for each": (
        lambda s: s.update({"logit_scale": torch.zeros(1)}), "layout", "shape of logit_scale",
    ),
}  # fmt: skip


@pytest.mark.parametrize("spoilt", SPOILT)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, spoilt: str) -> None:
    change, code, named = SPOILT[spoilt]
    path = copy_folder(tmp_path)
    state = dict(load_checkpoint(FOLDER / WEIGHTS))
    change(state)
    torch.save(state, path)
    with pytest.raises(BuildError) as refusal:
        FAMILY.load(path, None, {})
    assert refusal.value.code == f"checkpoint.{code}"
    assert named in str(refusal.value)


CONTAINERS: dict[str, Any] = {
    "data-parallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "training": lambda state: {"epoch": 3, "name": "run", "state_dict": state, "optimizer": {"state": {}}},
    "data-parallel training": lambda state: {
        "state_dict": {f"module.{key}": value for key, value in state.items()}
    },
    "without position_ids": lambda state: {k: v for k, v in state.items() if "position_ids" not in k},
    "with token_type_ids": lambda state: {
        **state,
        BERT + "embeddings.token_type_ids": torch.zeros(1, 512, dtype=torch.int64),
    },
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_way_to_store_the_weights_is_read(
    tmp_path: Path, model: LoadedModel, original: dict[str, Any], container: str
) -> None:
    path = copy_folder(tmp_path)
    state = dict(load_checkpoint(FOLDER / WEIGHTS))
    assert state[BERT + "embeddings.position_ids"].dtype == torch.int64
    torch.save(CONTAINERS[container](state), path)
    loaded = FAMILY.load(path, None, {})
    assert loaded.heads[0].identity == model.heads[0].identity
    image = loaded.image
    assert image
    vectors = image.module(torch.from_numpy(original["images"][:1]))[0]
    assert np.abs(vectors.numpy() - original["image_features"][:1]).max() <= UNIT


def test_a_learned_bias_is_added_and_rules_pairs_out(
    tmp_path: Path, model: LoadedModel, original: dict[str, Any]
) -> None:
    path = copy_folder(tmp_path)
    torch.save({**load_checkpoint(FOLDER / WEIGHTS), "logit_bias": torch.tensor(-9.5)}, path)
    loaded = FAMILY.load(path, None, {})
    assert list(model.heads[0].relations) == ["independent", "exclusive", "ordinal", "pair"]
    assert list(loaded.heads[0].relations) == ["independent", "exclusive", "ordinal"]
    image, head = loaded.image, loaded.heads[0].side
    assert image
    assert head
    features = image.module(torch.from_numpy(original["images"]))
    logits = head.module(*features, torch.from_numpy(original["text_features"]))[0].numpy()
    assert np.abs(logits - (original["logits_per_text"] - 9.5)).max() <= LOGIT
    encoder = TextEncoder(loaded.text.rule, loaded.text.tokenizer)
    findings = [encoder.encode_finding([TEXTS[0]])]
    answers = loaded.heads[0].reference(torch.from_numpy(original["images"][:1]), findings)
    assert np.abs(answers.logits - (original["logits_per_text"][:1, :1] - 9.5)).max() <= LOGIT


def test_half_precision_is_used_as_float32(tmp_path: Path, original: dict[str, Any]) -> None:
    path = copy_folder(tmp_path)
    state = {
        key: value.half() if value.is_floating_point() else value
        for key, value in load_checkpoint(FOLDER / WEIGHTS).items()
    }
    torch.save(state, path)
    image = FAMILY.load(path, None, {}).image
    assert image
    vectors = image.module(torch.from_numpy(original["images"][:1]))[0]
    expected, _ = arithmetic.image_vectors(state, torch.from_numpy(original["images"][:1]), HEADS)
    assert vectors.dtype == torch.float32
    assert np.abs(vectors.numpy() - expected.numpy()).max() <= UNIT


def test_options_are_checked(tmp_path: Path) -> None:
    for name, value in (
        ("image_heads", 0), ("image_heads", True), ("image_heads", "4"), ("resize", "fit"),
        ("resize", ["squash"]),
    ):  # fmt: skip
        with pytest.raises(BuildError) as refusal:
            FAMILY.load(FOLDER / WEIGHTS, None, {name: value})
        assert refusal.value.code == "recipe.invalid"
        assert refusal.value.artefact == f"model_options.{name}"
    with pytest.raises(BuildError, match=r"checkpoint\.layout"):
        FAMILY.load(FOLDER / WEIGHTS, None, {"image_heads": 7})


def test_the_preprocessing_is_the_configurations_or_the_recipes(tmp_path: Path, model: LoadedModel) -> None:
    assert model.preprocessing.colour == "rgb"
    path = copy_folder(tmp_path, config=lambda c: c["preprocess_cfg"].update(resize_mode="squash"))
    squashed = FAMILY.load(path, None, {})
    chosen = FAMILY.load(FOLDER / WEIGHTS, None, {"resize": "squash"})
    assert squashed.preprocessing == chosen.preprocessing != model.preprocessing
    assert squashed.heads[0].identity == model.heads[0].identity, (
        "cached prompts do not depend on the pictures"
    )
    assert "resize: squash" in squashed.notes


def test_what_is_assumed_of_an_unknown_image_tower_is_noted(tmp_path: Path, model: LoadedModel) -> None:
    assumed = (
        "vit_width64_depth3_heads4_patch16_224 with 4 attention heads, exact (erf) GELU and token pooling"
    )
    assert [note for note in model.notes if assumed in note]
    path = copy_folder(tmp_path, config=lambda c: c["model_cfg"]["vision_cfg"].update(timm_pool="avg"))
    assert [note for note in FAMILY.load(path, None, {}).notes if "GELU and avg pooling" in note]


def test_both_names_are_the_same_family() -> None:
    assert family("biomedclip") is family("open_clip") is FAMILY
