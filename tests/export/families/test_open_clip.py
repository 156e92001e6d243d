"""Dual encoders against the original: the sides in torch, the exported graphs, the plain arithmetic.

``tests/data/biomedclip_tiny/oracle.npz`` holds outputs of open_clip (see its README).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from promptray.export.checkpoint import load_checkpoint
from promptray.export.families.base import LoadedModel
from promptray.export.families.open_clip import FAMILY
from promptray.runtime.bank_file import pack, unpack
from promptray.runtime.bundle.image_rules import Door
from promptray.runtime.door import open_picture
from promptray.runtime.graphs import REPRODUCIBLE_PROMPTS
from promptray.runtime.preprocess import preprocess
from promptray.runtime.text import EncodedFinding, TextEncoder
from tests import open_clip_arithmetic as arithmetic
from tests.exported import Exported
from tests.open_clip_tiny import (
    CLASSES,
    FOLDER,
    IMAGES,
    LOGIT,
    PAIRS,
    RAW,
    TEXTS,
    UNIT,
    WEIGHTS,
    Sizes,
    image_path,
    oracle,
    random_state,
    write_folder,
)

HEADS = 4


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return FAMILY.load(FOLDER / WEIGHTS, None, {})


@pytest.fixture(scope="module")
def original() -> dict[str, Any]:
    return oracle()


@pytest.fixture(scope="module")
def encoder(model: LoadedModel) -> TextEncoder:
    return TextEncoder(model.text.rule, model.text.tokenizer)


@pytest.fixture(scope="module")
def exported(model: LoadedModel) -> Exported:
    return Exported(model)


def classes(encoder: TextEncoder) -> list[EncodedFinding]:
    return [encoder.encode_finding(texts) for texts in CLASSES.values()]


def singles(encoder: TextEncoder) -> list[EncodedFinding]:
    return [encoder.encode_finding([text]) for text in TEXTS]


def pairs(encoder: TextEncoder) -> list[EncodedFinding]:
    return [
        encoder.encode_finding([TEXTS[n] for n in positive], [TEXTS[n] for n in negative])
        for positive, negative in PAIRS.values()
    ]


def test_pixels_equal_the_original(model: LoadedModel, original: dict[str, Any]) -> None:
    rule = model.preprocessing
    for n, name in enumerate(IMAGES):
        picture = open_picture(
            image_path(name), Door(modalities=["DX"]), rule.greyscale, keep_colour=True, modality="DX"
        )
        assert (preprocess(picture.shown, rule).pixels[0] == original["images"][n]).all()


def test_tokens_equal_the_original(encoder: TextEncoder, original: dict[str, Any]) -> None:
    for n, text in enumerate(TEXTS):
        encoded = encoder.encode(text)
        ids = encoded.arrays["input_ids"][0].tolist()
        assert ids + [0] * (256 - len(ids)) == original["input_ids"][n].tolist()
        assert encoded.wording.truncated == (text == CLASSES["longer than 256 tokens"][0])


def test_torch_features_equal_the_original(model: LoadedModel, original: dict[str, Any]) -> None:
    """Before and after the projection and the normalisation, texts padded to the context."""
    image, text = model.image, model.text.side
    assert image
    assert text
    towers: Any = image.module.visual, text.module.model.text
    with torch.inference_mode():
        pooled = towers[0].trunk(torch.from_numpy(original["images"]))
        ids = torch.from_numpy(original["input_ids"])
        states = towers[1].transformer(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state
        found = {
            "image_pooled": (pooled, RAW),
            "image_features_raw": (towers[0].head(pooled), RAW),
            "image_features": (image.module(torch.from_numpy(original["images"]))[0], UNIT),
            "text_features_raw": (towers[1].proj(states[:, 0]), RAW),
            "text_features": (towers[1](ids), UNIT),
        }
    for name, (values, tolerance) in found.items():
        assert np.abs(values.numpy() - original[name]).max() <= tolerance, name


def test_torch_sides_equal_the_original(
    model: LoadedModel, encoder: TextEncoder, original: dict[str, Any]
) -> None:
    """Image side, text side and head put together in torch, each text at its own length."""
    image, text, head = model.image, model.text.side, model.heads[0].side
    assert image
    assert text
    assert head
    with torch.inference_mode():
        ids = [torch.from_numpy(encoder.encode(each).arrays["input_ids"]) for each in TEXTS]
        vectors = torch.stack([text.module(each)[0] for each in ids])
        assert np.abs(vectors.numpy() - original["text_features"]).max() <= UNIT
        features = image.module(torch.from_numpy(original["images"]))
        logits, _ = head.module(*features, vectors)
    assert np.abs(logits.numpy() - original["logits_per_text"]).max() <= LOGIT


@pytest.mark.parametrize("per_batch", [None, 1, 4, REPRODUCIBLE_PROMPTS])
@pytest.mark.parametrize("images", [1, 4])
def test_exported_graphs_equal_the_original(
    exported: Exported, original: dict[str, Any], images: int, per_batch: int | None
) -> None:
    pixels, encoder = original["images"], exported.encoder
    for findings, name in ((singles(encoder), "logits_per_text"), (classes(encoder), "logits")):
        bank = exported.bank(findings)
        for start in range(0, len(pixels), images):
            part = slice(start, start + images)
            logits, _ = exported.score(bank, pixels[part], per_batch=per_batch)
            assert np.abs(logits - original[name][part]).max() <= LOGIT
            alone = [
                exported.score(exported.bank([finding]), pixels[part], per_batch=per_batch)[0]
                for finding in findings[:2]
            ]
            assert np.abs(np.concatenate(alone, axis=1) - original[name][part, :2]).max() <= LOGIT


def test_exported_features_and_class_vectors_equal_the_original(
    exported: Exported, original: dict[str, Any]
) -> None:
    vectors = exported.image.run({"pixels": original["images"]})["image_vector"]
    assert np.abs(vectors - original["image_features"]).max() <= UNIT
    bank = exported.bank(classes(exported.encoder))
    found = np.stack([entry.tensors["finding_vector"] for entry in bank])
    assert np.abs(found - original["class_vectors"]).max() <= UNIT


def test_a_bank_survives_being_stored(exported: Exported, original: dict[str, Any]) -> None:
    bank = exported.bank(pairs(exported.encoder))
    stored = unpack(pack(bank), exported.rule, artefact="prompts.safetensors")
    assert [entry.facts() for entry in stored] == [entry.facts() for entry in bank]
    before, after = (exported.score(each, original["images"][:1])[0] for each in (bank, stored))
    assert (before == after).all()


def test_fixed_shapes_keep_every_bit(exported: Exported, original: dict[str, Any]) -> None:
    """Reproducible mode: alone, with others, and after one was added, the same bits."""
    pixels, findings = original["images"][1:2], singles(exported.encoder)
    together, _ = exported.score(exported.bank(findings), pixels, per_batch=REPRODUCIBLE_PROMPTS)
    for n in range(len(findings)):
        some, _ = exported.score(exported.bank(findings[n:]), pixels, per_batch=REPRODUCIBLE_PROMPTS)
        assert (some[0] == together[0, n:]).all()


def test_the_reference_equals_the_original(
    model: LoadedModel, encoder: TextEncoder, original: dict[str, Any]
) -> None:
    done: list[int] = []
    answers = model.heads[0].reference(torch.from_numpy(original["images"]), classes(encoder), done.append)
    assert np.abs(answers.logits - original["logits"]).max() <= LOGIT
    assert done == [1, 2, 3, 4]
    single = model.heads[0].reference(torch.from_numpy(original["images"][:1]), singles(encoder))
    assert np.abs(single.logits - original["logits_per_text"][:1]).max() <= LOGIT


def test_a_pair_is_the_difference_of_its_wordings(
    model: LoadedModel, exported: Exported, original: dict[str, Any]
) -> None:
    unit = original["text_features"].astype(np.float64)
    vectors = [
        _unit(unit[positive].mean(axis=0)) - _unit(unit[negative].mean(axis=0))
        for positive, negative in PAIRS.values()
    ]
    scale = np.exp(float(original["logit_scale"]))
    expected = scale * original["image_features"].astype(np.float64) @ np.stack(vectors).T
    per_text = original["logits_per_text"]
    assert np.abs(expected[:, 0] - (per_text[:, 0] - per_text[:, 6])).max() <= LOGIT
    findings = pairs(exported.encoder)
    logits, maps = exported.score(exported.bank(findings), original["images"])
    answers = model.heads[0].reference(torch.from_numpy(original["images"]), findings)
    assert np.abs(logits - expected).max() <= LOGIT
    assert np.abs(answers.logits - expected).max() <= LOGIT
    assert np.abs(answers.maps - maps).max() <= model.heads[0].map.tolerance


def test_maps_are_the_likeness_of_patches(
    model: LoadedModel, exported: Exported, original: dict[str, Any]
) -> None:
    """Against NumPy, from torch's tokens after the final norm: single texts, ensembles and pairs."""
    image = model.image
    assert image
    tower: Any = image.module.visual
    with torch.inference_mode():
        tokens = tower.trunk.forward_features(torch.from_numpy(original["images"])).numpy()
    weights = load_checkpoint(FOLDER / WEIGHTS)["visual.head.proj.weight"].numpy()
    patches = _unit(tokens[:, 1:].astype(np.float64) @ weights.T)
    unit = original["text_features"].astype(np.float64)
    negatives = np.stack([_unit(unit[negative].mean(axis=0)) for _, negative in PAIRS.values()])
    positives = np.stack([_unit(unit[positive].mean(axis=0)) for positive, _ in PAIRS.values()])
    encoder = exported.encoder
    expected = {
        "single": (singles(encoder), unit),
        "ensemble": (classes(encoder), original["class_vectors"]),
        "pair": (pairs(encoder), positives - negatives),
    }
    for name, (findings, vectors) in expected.items():
        grid = np.swapaxes(patches @ vectors.T, 1, 2).reshape(len(patches), len(vectors), 14, 14)
        _, maps = exported.score(exported.bank(findings), original["images"])
        assert np.abs(maps - grid).max() <= 5e-6, name


def _unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


OTHERS = {
    "the fixture's sizes": (Sizes(), 11),
    "other sizes everywhere": (
        Sizes(
            width=48, depth=2, mlp=72, heads=3, text_width=40, text_depth=4, text_mlp=56, text_heads=5,
            positions=300, embed=24, patch=32,
        ),
        12,
    ),
    "another image size": (Sizes(width=32, depth=1, mlp=64, heads=2, embed=64, patch=8, image=96), 13),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("other", OTHERS)
def test_other_weights_and_sizes_equal_plain_arithmetic(
    tmp_path: Path, original: dict[str, Any], other: str
) -> None:
    """Random weights against a forward pass in double precision written from the key layout."""
    sizes, seed = OTHERS[other]
    state = random_state(sizes, seed)
    model = FAMILY.load(write_folder(tmp_path, sizes, state), None, {"image_heads": sizes.heads})
    exported = Exported(model)
    offset = (224 - sizes.image) // 2
    pixels = original["images"][:, :, offset:, offset:][:, :, : sizes.image, : sizes.image].copy()
    vectors, patches = arithmetic.image_vectors(state, torch.from_numpy(pixels), sizes.heads)
    ids = [[token for token in row.tolist() if token] for row in original["input_ids"]]

    def class_vector(places: Sequence[int]) -> Any:
        return arithmetic.class_vector(state, [ids[n] for n in places], sizes.text_heads)

    of_class = [[n for n, text in enumerate(TEXTS) if text in texts] for texts in CLASSES.values()]
    expected = {
        "classes": (classes(exported.encoder), torch.stack([class_vector(each) for each in of_class])),
        "pairs": (
            pairs(exported.encoder),
            torch.stack([class_vector(own) - class_vector(not_) for own, not_ in PAIRS.values()]),
        ),
    }
    for name, (findings, entries) in expected.items():
        logits = state["logit_scale"].double().exp() * vectors @ entries.T
        maps = (patches @ entries.T).transpose(1, 2).numpy()
        bank = exported.bank(findings)
        for per_batch in (None, REPRODUCIBLE_PROMPTS):
            found, grids = exported.score(bank, pixels, per_batch=per_batch)
            assert np.abs(found - logits.numpy()).max() <= LOGIT, name
            assert np.abs(grids.reshape(maps.shape) - maps).max() <= model.heads[0].map.tolerance, name
        answers = model.heads[0].reference(torch.from_numpy(pixels), findings)
        assert np.abs(answers.logits - logits.numpy()).max() <= LOGIT, name


def test_the_graphs_keep_normalisation_fused(exported: Exported) -> None:
    for role in ("image", "text"):
        operators = {node.op_type for node in onnx.load_from_string(exported.files[role]).graph.node}
        assert "LayerNormalization" in operators
        assert not operators & {"ReduceVar", "Pow"}, "a decomposed LayerNorm overflows in fp16"
