"""ASG against the original: the sides in torch, the exported graphs, and what a loader must refuse.

``tests/data/asg_tiny/oracle.npz`` holds outputs of the published code (see its README).
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from promptray.export.families import facts
from promptray.export.families.asg import FAMILY
from promptray.export.families.asg_files import TAG_QUERIES
from promptray.export.families.asg_tags import TAG_NAMES as TAGS
from promptray.export.families.base import LoadedModel
from promptray.export.model_facts import describe
from promptray.export.recipe import read_recipe
from promptray.export.torchvision_guard import ensure_torchvision_imports
from promptray.runtime.bundle.manifest import Door
from promptray.runtime.door import open_picture
from promptray.runtime.errors import BuildError, PromptError
from promptray.runtime.graphs import REPRODUCIBLE_PROMPTS
from promptray.runtime.preprocess import preprocess
from promptray.runtime.prompts import BankEntry, PromptBank
from promptray.runtime.text import EncodedFinding, TextEncoder
from tests import asg_tiny
from tests.asg_tiny import CHECKPOINT, IMAGES, PROMPTS, TEXT_MODEL, image_path, oracle, write_checkpoint
from tests.exported import Exported
from tests.planned import planned

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
def original() -> dict[str, Any]:
    return oracle()


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
    rule = prompts.preprocessing
    for n, name in enumerate(IMAGES):
        picture = open_picture(image_path(name), Door(modalities=["DX"]), rule.greyscale, modality="DX")
        assert worst(preprocess(picture.shown, rule).pixels[0], original["images"][n]) <= 1e-6


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
        pixels = torch.from_numpy(original["images"])
        image, patches = side.encoder.features(pixels)
        assert worst(image, original["image_cls"]) <= STATE
        assert worst(patches, original["image_patches"]) <= STATE
        assert worst(side.encoder.global_embed(image), original["image_global"]) <= UNIT
        assert worst(side.encoder.local_embed(patches), original["image_local"]) <= UNIT
        vector, vectors = side(pixels)
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
        logits, maps = exported.score(bank, original["images"][part], per_batch=per_batch)
        assert worst(logits, original["scores_scaled"][part]) <= SCALED
        assert worst(logits * 0.07, original["scores"][part]) <= UNIT
        assert worst(maps, grids[part]) <= 5e-6


def test_exported_prompt_features_equal_the_original(exported: Exported, original: dict[str, Any]) -> None:
    features = exported.image.run({"pixels": original["images"]})
    assert worst(features["image_vector"], original["image_global"]) <= UNIT
    assert worst(features["patch_vectors"], original["image_local"]) <= UNIT
    bank = exported.bank(findings(exported.encoder))
    found = np.stack([entry.tensors["finding_vector"] for entry in bank])
    assert worst(found, original["prompt_embeddings"]) <= UNIT


def test_the_reference_of_prompts_equals_the_original(prompts: LoadedModel, original: dict[str, Any]) -> None:
    done: list[int] = []
    encoder = TextEncoder(prompts.text.rule, prompts.text.tokenizer)
    answers = prompts.heads[0].reference(torch.from_numpy(original["images"]), findings(encoder), done.append)
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
    logits, maps = exported.score(exported.bank(asked), original["images"])
    answers = prompts.heads[0].reference(torch.from_numpy(original["images"]), asked)
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
            logits, maps = exported_tags.score(bank, original["images"][part])
            assert worst(logits, original["tag_logits"][part][:, order]) <= STATE, name
            assert worst(maps.reshape(images, 40, 196), original["tag_maps"][part][:, order]) <= UNIT, name


def test_a_part_of_the_tags_scores_otherwise(
    tags: LoadedModel, exported_tags: Exported, original: dict[str, Any]
) -> None:
    """Why the set is one unit: five tags alone, and forty with padding beside them, get other logits."""
    subset = original["subset"].tolist()
    some = tag_bank(tags, exported_tags, [TAGS[n] for n in subset])
    logits, _ = exported_tags.score(some, original["images"])
    assert worst(logits, original["subset_logits"]) <= STATE
    assert worst(logits, original["tag_logits"][:, subset]) > 0.05
    whole = tag_bank(tags, exported_tags, list(TAGS))
    padded, _ = exported_tags.score(whole, original["images"], per_batch=48)
    assert worst(padded, original["tag_logits"]) > 100 * STATE


def test_the_reference_of_tags_equals_the_original(tags: LoadedModel, original: dict[str, Any]) -> None:
    asked = [EncodedFinding(class_name=tag) for tag in reversed(TAGS)]
    answers = tags.heads[0].reference(torch.from_numpy(original["images"]), asked)
    assert worst(answers.logits, original["tag_logits"][:, ::-1]) <= STATE
    assert answers.maps is not None
    assert worst(answers.maps.reshape(4, 40, 196), original["tag_maps"][:, ::-1]) <= UNIT


def test_one_image_side_serves_both_heads(both: LoadedModel, original: dict[str, Any]) -> None:
    assert [head.name for head in both.heads] == ["prompts", "tags"]
    assert [facts.name for facts in both.image.outputs] == ["image_vector", "patch_vectors", "patches"]
    with torch.inference_mode():
        found = module(both, "image")(torch.from_numpy(original["images"]))
    expected = (original["image_global"], original["image_local"], original["image_patches"])
    for values, wanted, bound in zip(found, expected, (UNIT, UNIT, STATE), strict=True):
        assert worst(values, wanted) <= bound


def test_both_heads_of_one_export_equal_the_original(both: LoadedModel, original: dict[str, Any]) -> None:
    of_prompts, of_tags = Exported(both), Exported(both, head=1)
    assert of_prompts.files["image"] == of_tags.files["image"]
    encoder = of_prompts.encoder
    logits, _ = of_prompts.score(of_prompts.bank(findings(encoder)), original["images"])
    assert worst(logits, original["scores_scaled"]) <= SCALED
    bank = PromptBank(of_tags.rule, [BankEntry(tag, (), both.head("tags").classes[tag]) for tag in TAGS])
    logits, maps = of_tags.score(bank, original["images"])
    assert worst(logits, original["tag_logits"]) <= STATE
    assert worst(maps.reshape(4, 40, 196), original["tag_maps"]) <= UNIT


@pytest.mark.parametrize("stems", [("text_encoder.",), ("irl.",)])
def test_a_checkpoint_without_tags_says_so(tmp_path: Path, stems: tuple[str, ...]) -> None:
    path = write_checkpoint(tmp_path, without(*stems))
    model = FAMILY.load(path, TEXT_MODEL, {})
    assert [head.name for head in model.heads] == ["prompts"]
    assert any(note.startswith("the head tags is left out: ") for note in model.notes)


def test_the_order_that_heads_are_asked_in_does_not_matter() -> None:
    model = FAMILY.load(CHECKPOINT, TEXT_MODEL, {"heads": ["tags", "prompts"]})
    assert [head.name for head in model.heads] == ["prompts", "tags"]


def test_attention_heads_matter(original: dict[str, Any]) -> None:
    """No tensor tells them: another number loads, and gives other vectors."""
    other = FAMILY.load(CHECKPOINT, TEXT_MODEL, {"image_heads": 2})
    with torch.inference_mode():
        vector, *_ = module(other, "image")(torch.from_numpy(original["images"]))
    assert worst(vector, original["image_global"]) > 100 * UNIT


def test_a_wrapper_before_all_names_is_taken_off(tmp_path: Path, original: dict[str, Any]) -> None:
    path = write_checkpoint(tmp_path, lambda state: {f"model.{key}": value for key, value in state.items()})
    model = FAMILY.load(path, TEXT_MODEL, {})
    with torch.inference_mode():
        assert (
            worst(module(model, "image")(torch.from_numpy(original["images"]))[0], original["image_global"])
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


def without(*stems: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {key: value for key, value in state.items() if not key.startswith(stems)}


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
    answers = model.heads[0].reference(torch.from_numpy(original["images"][:1]), findings(encoder))
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


@pytest.mark.slow
def test_a_resnet_scores_as_torchvision_says(tmp_path: Path, original: dict[str, Any]) -> None:
    """Enlarged by align_corners, stage 4's mean and stage 3's positions, through the projections."""
    resnet = asg_tiny.random_resnet(7)
    path = write_checkpoint(tmp_path, lambda state: {**without("img_encoder_q.")(state), **resnet})
    model = FAMILY.load(path, TEXT_MODEL, {})
    pixels = torch.from_numpy(original["images"][:2])
    image, positions = _torchvision_features(resnet, pixels)
    expected = _projected(resnet, "global", image), _projected(resnet, "local", positions)
    with torch.inference_mode():
        for found, wanted in zip(module(model, "image")(pixels), expected, strict=True):
            assert worst(found, wanted.numpy()) <= UNIT
    exported = Exported(model)
    asked = findings(exported.encoder)
    logits, maps = exported.score(exported.bank(asked), original["images"][:2])
    answers = model.heads[0].reference(pixels, asked)
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
