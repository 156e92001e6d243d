"""What the loader of ASG takes of a checkpoint and of the encoded tags, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from promptray.export.families import facts
from promptray.export.families.asg import FAMILY
from promptray.export.families.asg_files import TAG_QUERIES
from promptray.export.families.asg_tags import TAG_NAMES as TAGS
from promptray.export.families.base import LoadedModel
from promptray.export.model_facts import describe
from promptray.export.recipe import read_recipe
from promptray.runtime.errors import BuildError
from promptray.runtime.text import TextEncoder
from tests import asg_tiny
from tests.asg_tiny import CHECKPOINT, PROMPTS, TEXT_MODEL, oracle, without, write_checkpoint
from tests.planned import planned

# The fixture's own tolerances (its README).
UNIT, SCALED = 2e-6, 2e-5


@pytest.fixture(scope="module")
def tags() -> LoadedModel:
    return FAMILY.load(CHECKPOINT, TEXT_MODEL, {"heads": ["tags"]})


@pytest.fixture(scope="module")
def original(tags: LoadedModel) -> dict[str, Any]:
    return {**oracle(), "pixels": asg_tiny.pixels(tags.preprocessing)}


def worst(found: Any, expected: Any) -> float:
    assert np.shape(found) == np.shape(expected)
    return float(np.abs(np.asarray(found) - expected).max())


def test_a_checkpoint_without_a_decoder_has_no_tags(tmp_path: Path) -> None:
    model = FAMILY.load(write_checkpoint(tmp_path, without("irl.")), TEXT_MODEL, {})
    assert [head.name for head in model.heads] == ["prompts"]
    why = "the head tags is left out: the checkpoint holds no decoder of tags"
    assert why in model.notes
    changes = asg_tiny.both_recipe(findings=[{"key": "edema", "head": "tags"}])
    asked = read_recipe(asg_tiny.write_recipe(tmp_path, **changes))
    with pytest.raises(BuildError, match=f"this model has no such head: {why}"):
        planned(asked, describe(model))


def test_a_decoder_whose_tags_cannot_be_encoded_is_not_left_out_silently(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, without("text_encoder."))
    with pytest.raises(BuildError, match="frozen text model") as refused:
        FAMILY.load(path, TEXT_MODEL, {})
    assert refused.value.code == "checkpoint.layout"
    assert "model_options.heads to [prompts]" in str(refused.value.cure)
    assert [head.name for head in FAMILY.load(path, TEXT_MODEL, {"heads": ["prompts"]}).heads] == ["prompts"]


@pytest.mark.parametrize("off", [0.0, 1e-3])
def test_encoded_tags_must_be_what_the_text_model_makes(
    tmp_path: Path, original: dict[str, Any], off: float
) -> None:
    folder = tmp_path / "text_model"
    shutil.copytree(TEXT_MODEL, folder)
    save_file({"queries": torch.from_numpy(original["tag_queries"]) + off}, folder / TAG_QUERIES)
    if not off:
        assert len(FAMILY.load(CHECKPOINT, folder, {}).heads) == 2
        return
    with pytest.raises(BuildError, match="what the checkpoint's own text model makes") as refused:
        FAMILY.load(CHECKPOINT, folder, {})
    assert (refused.value.code, refused.value.artefact) == ("text-model.invalid", TAG_QUERIES)


def test_a_wrapper_before_all_names_is_taken_off(tmp_path: Path, original: dict[str, Any]) -> None:
    path = write_checkpoint(tmp_path, lambda state: {f"model.{key}": value for key, value in state.items()})
    model = FAMILY.load(path, TEXT_MODEL, {})
    with torch.inference_mode():
        assert (
            worst(model.image.module(torch.from_numpy(original["pixels"]))[0], original["image_global"])
            <= UNIT
        )
    assert any("not verified" in note and "temperature" in note for note in model.notes)


def test_prompts_need_no_tag_encoder(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, without("text_encoder.", "irl."))
    assert [head.name for head in FAMILY.load(path, TEXT_MODEL, {}).heads] == ["prompts"]


def test_encoded_tags_stand_in_for_their_text_model(tmp_path: Path, original: dict[str, Any]) -> None:
    path, folder = write_checkpoint(tmp_path, without("text_encoder.")), tmp_path / "text_model"
    shutil.copytree(TEXT_MODEL, folder)
    queries = torch.from_numpy(original["tag_queries"])
    save_file({"queries": queries}, folder / TAG_QUERIES)
    assert folder / TAG_QUERIES in facts("asg").source_files(path, folder), "a build hashes what it reads"
    model = FAMILY.load(path, folder, {"heads": ["tags"]})
    classes = model.heads[0].classes
    assert worst(np.stack([classes[tag]["tag_query"] for tag in TAGS]), original["tag_queries"]) == 0
    for broken in ({"queries": queries[:39]}, {"queries": queries.double()}, {"query": queries},
                   {"queries": queries * torch.nan}):  # fmt: skip
        save_file(broken, folder / TAG_QUERIES)
        with pytest.raises(BuildError) as refused:
            FAMILY.load(path, folder, {"heads": ["tags"]})
        assert refused.value.code == "text-model.invalid"
    (folder / TAG_QUERIES).write_bytes(b"no tensors")
    with pytest.raises(BuildError, match="unreadable"):
        FAMILY.load(path, folder, {"heads": ["tags"]})


def _two_outputs(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "irl.mlp_head.0.weight": torch.zeros(2, 64), "irl.mlp_head.0.bias": torch.zeros(2)}


def _two_norms(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "irl.decoder.norm.weight": state["irl.decoder_norm.weight"] + 1}


def _token_types(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "text_encoder_q.model.embeddings.token_type_embeddings.weight": torch.zeros(2, 64)}


def _resnet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "img_encoder_q.model.conv1.weight": torch.zeros(64, 3, 7, 7)}


_LAYOUT = "checkpoint.layout"
REFUSED: dict[str, tuple[Any, dict[str, object], str, str]] = {
    "tags without their text model": (without("text_encoder."), {"heads": ["tags"]}, _LAYOUT, "frozen"),
    "tags of a decoder with two outputs": (_two_outputs, {"heads": ["tags"]}, _LAYOUT, "one logit"),
    "two values of one norm": (_two_norms, {"heads": ["tags"]}, _LAYOUT, "two different"),
    "tags of a ResNet": (_resnet, {"heads": ["tags"]}, _LAYOUT, "adapter"),
    "no report encoder": (without("text_encoder_q."), {}, _LAYOUT, "do not describe"),
    "no image side": (without("img_encoder_q."), {}, _LAYOUT, "belongs to ASG"),
    "a bias missing": (
        without("img_encoder_q.local_embed.head.3.bias"), {}, _LAYOUT, "local_embed.head.3.bias",
    ),
    "token types that the original has not": (_token_types, {}, _LAYOUT, "token_type_embeddings"),
    "a decoder with two outputs where the recipe does not say": (_two_outputs, {}, _LAYOUT, "one logit"),
    "two values of one norm where the recipe does not say": (_two_norms, {}, _LAYOUT, "two different"),
    "an unknown head": (dict, {"heads": ["regions"]}, "recipe.invalid", "model_options.heads"),
    "no head": (dict, {"heads": []}, "recipe.invalid", "model_options.heads"),
    "a head twice": (dict, {"heads": ["tags", "tags"]}, "recipe.invalid", "model_options.heads"),
    "heads that are no list": (dict, {"heads": "tags"}, "recipe.invalid", "model_options.heads"),
    "heads that are no texts": (dict, {"heads": [["tags"]]}, "recipe.invalid", "model_options.heads"),
    "heads that do not divide the width": (dict, {"image_heads": 5}, _LAYOUT, "image_heads"),
    "heads that are no number": (dict, {"image_heads": True}, "recipe.invalid", "image_heads"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_loader_refuses(tmp_path: Path, case: str) -> None:
    change, options, code, said = REFUSED[case]
    path = write_checkpoint(tmp_path, change)
    with pytest.raises(BuildError, match=said) as refused:
        FAMILY.load(path, TEXT_MODEL, options)
    assert refused.value.code == code


@pytest.mark.parametrize("stated", [0, -1.0, float("nan"), "0.07", True])
def test_a_temperature_that_cannot_be_used(tmp_path: Path, stated: object) -> None:
    path = write_checkpoint(tmp_path, dict, hyper_parameters={"softmax_temperature": stated})
    with pytest.raises(BuildError) as refused:
        FAMILY.load(path, TEXT_MODEL, {})
    assert refused.value.code == "checkpoint.config"


def test_a_stated_temperature_is_used(tmp_path: Path, original: dict[str, Any]) -> None:
    path = write_checkpoint(tmp_path, dict, hyper_parameters={"softmax_temperature": 0.14})
    model = FAMILY.load(path, TEXT_MODEL, {})
    encoder = TextEncoder(model.text.rule, model.text.tokenizer)
    answers = model.heads[0].reference(
        torch.from_numpy(original["pixels"][:1]),
        [encoder.encode_finding([text]) for text in PROMPTS.values()],
    )
    assert worst(answers.logits, original["scores_scaled"][:1] / 2) <= SCALED


def test_a_vocabulary_that_lacks_a_tag_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "text_model"
    folder.mkdir()
    (folder / "config.json").write_bytes((TEXT_MODEL / "config.json").read_bytes())
    pieces = (TEXT_MODEL / "vocab.txt").read_text(encoding="utf-8")
    assert "\nstent\n" in pieces
    letters = {f"\n{piece}\n" for piece in ("s", "st", "ste", "sten")}
    assert not any(letter in pieces for letter in letters if letter != "\ns\n")
    changed = pieces.replace("\nstent\n", "\nsomething\n").replace("\ns\n", "\nanother\n")
    (folder / "vocab.txt").write_text(changed, encoding="utf-8")
    with pytest.raises(BuildError, match="lacks a word of a tag") as refused:
        FAMILY.load(CHECKPOINT, folder, {"heads": ["tags"]})
    assert refused.value.code == "text-model.invalid"


@pytest.mark.parametrize(
    ("tags_asked", "found"),
    [(TAGS[1:], "pleural effusion"), ((*TAGS, "rib fracture"), "rib fracture")],
)
def test_a_recipe_with_other_tags_is_refused(
    tmp_path: Path, tags: LoadedModel, tags_asked: tuple[str, ...], found: str
) -> None:
    changes = asg_tiny.tags_recipe(findings=[{"key": tag} for tag in tags_asked])
    asked = read_recipe(asg_tiny.write_recipe(tmp_path, **changes))
    with pytest.raises(BuildError, match="the score of one depends on all of them") as refused:
        planned(asked, describe(tags))
    assert (refused.value.code, refused.value.found) == ("recipe.invalid", found)


def test_a_tag_may_have_another_key(tmp_path: Path, tags: LoadedModel) -> None:
    named = [{"key": tag} for tag in TAGS[1:]] + [{"key": "effusion", "class_name": "pleural effusion"}]
    asked = read_recipe(asg_tiny.write_recipe(tmp_path, **asg_tiny.tags_recipe(findings=named)))
    settings, made = planned(asked, describe(tags))
    assert made[-1].key == "effusion"
    assert tags.heads[0].set == "fixed"
    assert (settings.relation, settings.activation) == ("independent", "sigmoid")
