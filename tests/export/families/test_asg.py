"""ASG against the original: the sides in torch, the exported graphs.

``tests/data/asg_tiny/oracle.npz`` holds outputs of the published code (see its README).
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from promptray.export.families.asg import FAMILY
from promptray.export.families.asg_tags import TAG_NAMES as TAGS
from promptray.export.families.base import LoadedModel
from promptray.export.torchvision_guard import ensure_torchvision_imports
from promptray.runtime.errors import PromptError
from promptray.runtime.graphs import REPRODUCIBLE_PROMPTS
from promptray.runtime.prompts import BankEntry, PromptBank
from promptray.runtime.text import EncodedFinding, TextEncoder
from tests import asg_tiny
from tests.asg_tiny import (
    CHECKPOINT,
    IMAGES,
    PROMPTS,
    TEXT_MODEL,
    oracle,
    pixels,
    without,
    write_checkpoint,
)
from tests.exported import Exported

# The fixture's own tolerances (its README).
STATE, UNIT, SCALED, QUERY = 2e-5, 2e-6, 2e-5, 5e-5


@pytest.fixture(scope="module")
def prompts() -> LoadedModel:
    return FAMILY.load(CHECKPOINT, TEXT_MODEL, {"heads": ["prompts"]})


@pytest.fixture(scope="module")
def tags() -> LoadedModel:
    return FAMILY.load(CHECKPOINT, TEXT_MODEL, {"heads": ["tags"]})


@pytest.fixture(scope="module")
def both() -> LoadedModel:
    return FAMILY.load(CHECKPOINT, TEXT_MODEL, {})


@pytest.fixture(scope="module")
def original(prompts: LoadedModel) -> dict[str, Any]:
    """The original's outputs, and `pixels`: the plane of its pictures that is read for its three."""
    return {**oracle(), "pixels": pixels(prompts.preprocessing)}


@pytest.fixture(scope="module")
def exported(prompts: LoadedModel) -> Exported:
    return Exported(prompts)


@pytest.fixture(scope="module")
def exported_tags(tags: LoadedModel) -> Exported:
    return Exported(tags)


def module(model: LoadedModel, role: str) -> Any:
    if role == "text":
        assert model.text is not None
        return model.text.side.module
    return (model.image if role == "image" else model.heads[0].side).module


def worst(found: Any, expected: Any) -> float:
    assert np.shape(found) == np.shape(expected)
    return float(np.abs(np.asarray(found) - expected).max())


def tag_bank(model: LoadedModel, exported: Exported, names: list[str]) -> PromptBank:
    return PromptBank(exported.rule, [BankEntry(name, (), model.heads[0].classes[name]) for name in names])


def findings(encoder: TextEncoder) -> list[EncodedFinding]:
    return [encoder.encode_finding([text]) for text in PROMPTS.values()]


def test_the_oracle_names_what_is_compared(original: dict[str, Any]) -> None:
    assert tuple(original["tags"]) == TAGS == tuple(asg_tiny.TAGS)
    assert tuple(original["prompt_names"]) == tuple(PROMPTS)
    assert tuple(original["image_names"]) == IMAGES


def test_pixels_equal_the_original(prompts: LoadedModel, original: dict[str, Any]) -> None:
    """All of its three planes, made of the one."""
    found = asg_tiny.planes(original["pixels"], prompts.preprocessing)
    assert worst(found, original["images"]) <= 1e-6


def test_tokens_equal_the_original(prompts: LoadedModel, original: dict[str, Any]) -> None:
    encoder = TextEncoder(prompts.text.rule, prompts.text.tokenizer)
    for n, (name, text) in enumerate(PROMPTS.items()):
        encoded = encoder.encode(text)
        ids = encoded.arrays["input_ids"][0].tolist()
        assert ids + [0] * (112 - len(ids)) == original["input_ids"][n].tolist()
        assert len(ids) == original["attention_mask"][n].sum()
        assert encoded.wording.truncated == (name == "truncated")


def test_torch_images_equal_the_original(prompts: LoadedModel, original: dict[str, Any]) -> None:
    """Before the projections, with their batch norms apart, and with them folded."""
    side = module(prompts, "image")
    with torch.inference_mode():
        given = torch.from_numpy(original["pixels"])
        image, patches = side.encoder.features(given)
        assert worst(image, original["image_cls"]) <= STATE
        assert worst(patches, original["image_patches"]) <= STATE
        assert worst(side.encoder.global_embed(image), original["image_global"]) <= UNIT
        assert worst(side.encoder.local_embed(patches), original["image_local"]) <= UNIT
        vector, vectors = side(given)
    assert worst(vector, original["image_global"]) <= UNIT
    assert worst(vectors, original["image_local"]) <= UNIT


def test_torch_texts_equal_the_original(prompts: LoadedModel, original: dict[str, Any]) -> None:
    """The report's state, its projection, and every word: [CLS] is none, [SEP] is the last."""
    side = module(prompts, "text")
    encoder = TextEncoder(prompts.text.rule, prompts.text.tokenizer)
    with torch.inference_mode():
        padded = side.encoder(*(torch.from_numpy(original[key]) for key in ("input_ids", "attention_mask")))
        assert worst(padded[:, 0], original["report_cls"]) <= STATE
        for n, text in enumerate(PROMPTS.values()):
            arrays = {key: torch.from_numpy(value) for key, value in encoder.encode(text).arrays.items()}
            sentence, mean = side(**arrays)
            assert worst(sentence, original["prompt_embeddings"][n]) <= UNIT
            states = side.encoder(arrays["input_ids"])
            words = side.encoder.local_embed(arrays["word_matrix"][:, 1:] @ states)[0]
            assert worst(words, original["prompt_words"][n, : len(words)]) <= UNIT
            total = original["prompt_words"][n, : len(words) - 1].astype(np.float64).sum(axis=0)
            assert worst(mean, total / np.linalg.norm(total)) <= UNIT


def test_order_of_words_does_not_reach_the_score(original: dict[str, Any], exported: Exported) -> None:
    """`order a` and `order b` mean the opposite; the original cannot tell them apart, and neither can we."""
    bank = PromptBank(exported.rule, exported.bank(findings(exported.encoder)))
    a, b = (bank.entries[list(PROMPTS).index(name)] for name in ("order a", "order b"))
    for name, tensor in a.tensors.items():
        assert worst(tensor, b.tensors[name]) <= 5e-7


@pytest.mark.parametrize("per_batch", [None, 1, REPRODUCIBLE_PROMPTS])
@pytest.mark.parametrize("images", [1, 4])
def test_exported_prompts_equal_the_original(
    exported: Exported, original: dict[str, Any], images: int, per_batch: int | None
) -> None:
    bank = exported.bank(findings(exported.encoder))
    words = np.stack([entry.tensors["words_vector"] for entry in bank])
    grids = np.swapaxes(original["image_local"] @ words.T, 1, 2).reshape(4, len(bank), 14, 14)
    for start in range(0, 4, images):
        part = slice(start, start + images)
        logits, maps = exported.score(bank, original["pixels"][part], per_batch=per_batch)
        assert worst(logits, original["scores_scaled"][part]) <= SCALED
        assert worst(logits * 0.07, original["scores"][part]) <= UNIT
        assert worst(maps, grids[part]) <= 5e-6


def test_exported_prompt_features_equal_the_original(exported: Exported, original: dict[str, Any]) -> None:
    features = exported.image.run({"pixels": original["pixels"]})
    assert worst(features["image_vector"], original["image_global"]) <= UNIT
    assert worst(features["patch_vectors"], original["image_local"]) <= UNIT
    bank = exported.bank(findings(exported.encoder))
    found = np.stack([entry.tensors["finding_vector"] for entry in bank])
    assert worst(found, original["prompt_embeddings"]) <= UNIT


def test_the_reference_of_prompts_equals_the_original(prompts: LoadedModel, original: dict[str, Any]) -> None:
    done: list[int] = []
    encoder = TextEncoder(prompts.text.rule, prompts.text.tokenizer)
    answers = prompts.heads[0].reference(torch.from_numpy(original["pixels"]), findings(encoder), done.append)
    assert worst(answers.logits, original["scores_scaled"]) <= SCALED
    assert done == [1, 2, 3, 4]


def test_pairs_and_ensembles_equal_the_reference(
    prompts: LoadedModel, exported: Exported, original: dict[str, Any]
) -> None:
    """A finding of two wordings against a negative: the difference of mean unit vectors, maps likewise."""
    encoder = exported.encoder
    asked = [
        encoder.encode_finding(["pleural effusion", "mild pleural effusion"], ["no pleural effusion"]),
        encoder.encode_finding(["edema"], ["no edema", "there is no edema"]),
    ]
    logits, maps = exported.score(exported.bank(asked), original["pixels"])
    answers = prompts.heads[0].reference(torch.from_numpy(original["pixels"]), asked)
    assert worst(logits, answers.logits) <= SCALED
    assert answers.maps is not None
    assert worst(maps, answers.maps) <= prompts.heads[0].map.tolerance


def test_a_pair_of_the_same_words_is_refused(exported: Exported) -> None:
    """In another order they have the same vector, so there is nothing to compare."""
    same = exported.encoder.encode_finding(
        ["mild edema no pleural effusion"], ["no edema mild pleural effusion"]
    )
    with pytest.raises(PromptError, match="cannot tell the prompt from its negative") as refused:
        exported.bank([same])
    assert refused.value.code == "prompt.invalid"


def test_a_prompt_without_words_has_no_vector(exported: Exported) -> None:
    empty = exported.encoder.encode_finding([" \n "])
    with pytest.raises(PromptError) as refused:
        exported.bank([empty])
    assert refused.value.code == "prompt.empty"


def test_tag_queries_equal_the_original(tags: LoadedModel, original: dict[str, Any]) -> None:
    queries = np.stack([tags.heads[0].classes[tag]["tag_query"] for tag in TAGS])
    assert worst(queries, original["tag_queries"]) <= QUERY


def test_torch_tags_equal_the_original(tags: LoadedModel, original: dict[str, Any]) -> None:
    head = module(tags, "head")
    queries = torch.from_numpy(original["tag_queries"])
    with torch.inference_mode():
        patches = torch.from_numpy(original["image_patches"])
        logits, maps = head(patches, queries)
        assert worst(logits, original["tag_logits"]) <= STATE
        assert worst(logits.sigmoid(), original["tag_probabilities"]) <= 5e-6
        assert worst(maps.flatten(2), original["tag_maps"]) <= UNIT
        some, some_maps = head(patches, queries[original["subset"]])
    assert worst(some, original["subset_logits"]) <= STATE
    assert worst(some_maps.flatten(2), original["subset_maps"]) <= UNIT


@pytest.mark.parametrize("images", [1, 4])
def test_exported_tags_equal_the_original_in_any_order(
    tags: LoadedModel, exported_tags: Exported, original: dict[str, Any], images: int
) -> None:
    orders = {"as published": list(range(40)), "mixed": np.random.default_rng(3).permutation(40).tolist()}
    for name, order in orders.items():
        bank = tag_bank(tags, exported_tags, [TAGS[n] for n in order])
        for start in range(0, 4, images):
            part = slice(start, start + images)
            logits, maps = exported_tags.score(bank, original["pixels"][part])
            assert worst(logits, original["tag_logits"][part][:, order]) <= STATE, name
            assert worst(maps.reshape(images, 40, 196), original["tag_maps"][part][:, order]) <= UNIT, name


def test_a_part_of_the_tags_scores_otherwise(
    tags: LoadedModel, exported_tags: Exported, original: dict[str, Any]
) -> None:
    """Why the set is one unit: five tags alone, and forty with padding beside them, get other logits."""
    subset = original["subset"].tolist()
    some = tag_bank(tags, exported_tags, [TAGS[n] for n in subset])
    logits, _ = exported_tags.score(some, original["pixels"])
    assert worst(logits, original["subset_logits"]) <= STATE
    assert worst(logits, original["tag_logits"][:, subset]) > 0.05
    whole = tag_bank(tags, exported_tags, list(TAGS))
    padded, _ = exported_tags.score(whole, original["pixels"], per_batch=48)
    assert worst(padded, original["tag_logits"]) > 100 * STATE


def test_the_reference_of_tags_equals_the_original(tags: LoadedModel, original: dict[str, Any]) -> None:
    asked = [EncodedFinding(class_name=tag) for tag in reversed(TAGS)]
    answers = tags.heads[0].reference(torch.from_numpy(original["pixels"]), asked)
    assert worst(answers.logits, original["tag_logits"][:, ::-1]) <= STATE
    assert answers.maps is not None
    assert worst(answers.maps.reshape(4, 40, 196), original["tag_maps"][:, ::-1]) <= UNIT


def test_one_image_side_serves_both_heads(both: LoadedModel, original: dict[str, Any]) -> None:
    assert [head.name for head in both.heads] == ["prompts", "tags"]
    assert [facts.name for facts in both.image.outputs] == ["image_vector", "patch_vectors", "patches"]
    with torch.inference_mode():
        found = module(both, "image")(torch.from_numpy(original["pixels"]))
    expected = (original["image_global"], original["image_local"], original["image_patches"])
    for values, wanted, bound in zip(found, expected, (UNIT, UNIT, STATE), strict=True):
        assert worst(values, wanted) <= bound


def test_both_heads_of_one_export_equal_the_original(both: LoadedModel, original: dict[str, Any]) -> None:
    of_prompts, of_tags = Exported(both), Exported(both, head=1)
    assert of_prompts.files["image"] == of_tags.files["image"]
    encoder = of_prompts.encoder
    logits, _ = of_prompts.score(of_prompts.bank(findings(encoder)), original["pixels"])
    assert worst(logits, original["scores_scaled"]) <= SCALED
    bank = PromptBank(of_tags.rule, [BankEntry(tag, (), both.head("tags").classes[tag]) for tag in TAGS])
    logits, maps = of_tags.score(bank, original["pixels"])
    assert worst(logits, original["tag_logits"]) <= STATE
    assert worst(maps.reshape(4, 40, 196), original["tag_maps"]) <= UNIT


def test_the_order_that_heads_are_asked_in_does_not_matter() -> None:
    model = FAMILY.load(CHECKPOINT, TEXT_MODEL, {"heads": ["tags", "prompts"]})
    assert [head.name for head in model.heads] == ["prompts", "tags"]


def test_attention_heads_matter(original: dict[str, Any]) -> None:
    """No tensor tells them: another number loads, and gives other vectors."""
    other = FAMILY.load(CHECKPOINT, TEXT_MODEL, {"image_heads": 2})
    with torch.inference_mode():
        vector, *_ = module(other, "image")(torch.from_numpy(original["pixels"]))
    assert worst(vector, original["image_global"]) > 100 * UNIT


@pytest.mark.slow
def test_a_resnet_scores_as_torchvision_says(tmp_path: Path, original: dict[str, Any]) -> None:
    """Enlarged by align_corners, stage 4's mean and stage 3's positions, through the projections."""
    resnet = asg_tiny.random_resnet(7)
    path = write_checkpoint(tmp_path, lambda state: {**without("img_encoder_q.")(state), **resnet})
    model = FAMILY.load(path, TEXT_MODEL, {})
    assert model.preprocessing.channels == 3, "its stem pads, with another grey in each plane"
    planes = torch.from_numpy(original["images"][:2])
    image, positions = _torchvision_features(resnet, planes)
    expected = _projected(resnet, "global", image), _projected(resnet, "local", positions)
    with torch.inference_mode():
        for found, wanted in zip(module(model, "image")(planes), expected, strict=True):
            assert worst(found, wanted.numpy()) <= UNIT
    exported = Exported(model)
    asked = findings(exported.encoder)
    logits, maps = exported.score(exported.bank(asked), original["images"][:2])
    answers = model.heads[0].reference(planes, asked)
    assert worst(logits, answers.logits) <= SCALED
    assert answers.maps is not None
    assert maps.shape[2:] == (19, 19)
    assert worst(maps, answers.maps) <= model.heads[0].map.tolerance


def _torchvision_features(state: dict[str, Tensor], pixels: Tensor) -> tuple[Tensor, Tensor]:
    ensure_torchvision_imports()
    from torchvision.models import resnet50

    net = copy.deepcopy(resnet50()).double().eval()
    own = {key.removeprefix("img_encoder_q.model."): value for key, value in state.items()}
    net.load_state_dict({key: own.get(key, value) for key, value in net.state_dict().items()})
    with torch.inference_mode():
        x = F.interpolate(pixels.double(), size=299, mode="bilinear", align_corners=True)
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        positions = net.layer3(net.layer2(net.layer1(x)))
        return net.avgpool(net.layer4(positions)).flatten(1), positions.flatten(2).transpose(1, 2)


def _projected(state: dict[str, Tensor], name: str, vectors: Tensor) -> Tensor:
    """Return unit vectors by the published layers, in double precision."""
    part = {
        key.partition("_embed.head.")[2]: value.double()
        for key, value in state.items()
        if f"{name}_embed" in key
    }
    x = vectors @ part["0.weight"].flatten(1).T + part["0.bias"]
    x = (x - part["1.running_mean"]) / (part["1.running_var"] + 1e-5).sqrt()
    x = (x * part["1.weight"] + part["1.bias"]).relu() @ part["3.weight"].flatten(1).T + part["3.bias"]
    return F.normalize((x - part["4.running_mean"]) / (part["4.running_var"] + 1e-5).sqrt(), dim=-1)
