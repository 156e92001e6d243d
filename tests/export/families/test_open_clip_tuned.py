"""A tuned image tower with a classifier, against arithmetic in double written from the key layout alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from promptray import PromptError, Scorer, ScoringError
from promptray.export.build import build
from promptray.export.families.base import LoadedModel
from promptray.export.families.open_clip import FAMILY
from promptray.export.torchvision_guard import ensure_torchvision_imports
from promptray.runtime.bundle.validate import LARGEST_TOLERANCE
from promptray.runtime.errors import BuildError
from promptray.runtime.text import EncodedFinding
from tests import open_clip_arithmetic as arithmetic
from tests.carzero_tiny import build_once
from tests.open_clip_tiny import CONFIG, FOLDER, IMAGES, WEIGHTS, change_json, image_path
from tests.open_clip_tuned_tiny import (
    NAME,
    OPTIONS,
    ORDER,
    plain_logits,
    recipe,
    tuned_state,
    write_recipe,
    write_tuned,
)

ensure_torchvision_imports()

from timm import create_model  # noqa: E402 - timm imports torchvision

PIXELS, LOGITS, SHARES = 5e-6, 2e-5, 5e-6


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.cat([arithmetic.study_pixels(image_path(name)) for name in IMAGES])


@pytest.fixture(scope="module")
def scorer(shared_dir: Path) -> Any:
    with Scorer.open(build_once(shared_dir, "open-clip-tuned", write_recipe), site=None) as opened:
        yield opened


def load(path: Path, **options: Any) -> LoadedModel:
    return FAMILY.load(path, None, {**OPTIONS, **options})


def logits_of(model: LoadedModel, pixels: Tensor, order: Any = ORDER) -> Any:
    """Score in torch, by the sides put together and by the reference, which must agree."""
    image, head = model.image, model.heads[0].side
    assert image
    assert head
    assert model.heads[0].classes is not None
    bank = [
        torch.from_numpy(np.stack([model.heads[0].classes[name][facts.name] for name in order]))
        for facts in model.heads[0].bank
    ]
    with torch.inference_mode():
        (logits,) = head.module(*image.module(pixels.float()), *bank)
    answers = model.heads[0].reference(pixels.float(), [EncodedFinding(class_name=name) for name in order])
    assert answers.maps is None
    assert np.abs(answers.logits - logits.numpy()).max() <= LOGITS
    return logits.double()


def test_the_scorer_equals_plain_arithmetic(scorer: Scorer, pixels: Tensor) -> None:
    """From the recipe to the score: pixels, logits, softmax, place on the scale; A to D, stored B A D C."""
    state = tuned_state()
    expected = plain_logits(state, pixels)[:, [ORDER.index(key) for key in "ABCD"]]
    shares = expected.softmax(dim=1)
    for number, name in enumerate(IMAGES):
        prepared = scorer.prepare(image_path(name), modality="MG")
        assert np.abs(prepared.network_input.pixels - pixels[number : number + 1].numpy()).max() <= PIXELS
        result = scorer.infer(prepared)
        assert list(result.scores) == list("ABCD")
        scores = list(result.scores.values())
        assert np.abs([each.logit for each in scores] - expected[number].numpy()).max() <= LOGITS
        assert np.abs([each.softmax for each in scores] - shares[number].numpy()).max() <= SHARES
        assert result.summary is not None
        rank = float(shares[number] @ torch.arange(1.0, 5.0).double())
        assert result.summary.expected_rank == pytest.approx(rank, abs=1e-5)
        assert result.summary.groups["dense"] == pytest.approx(float(shares[number, 2:].sum()), abs=1e-5)
    assert expected.std(dim=0).min() > 1e-3, "the images must differ for the comparison to say something"


def test_there_is_no_map_and_the_bundle_says_why(scorer: Scorer) -> None:
    result = scorer.score(image_path("tall"), modality="MG")
    with pytest.raises(ScoringError) as refusal:
        result.heatmap("A")
    assert refusal.value.code == "score.map-unavailable"
    assert "no explanation map" in scorer.bundle.read("parity.json").decode()


def test_provenance_names_what_was_read(scorer: Scorer) -> None:
    """A vocabulary lies beside the weights, and a classifier reads none."""
    assert [each.name for each in scorer.bundle.manifest.provenance.sources] == [CONFIG]


def test_classes_are_one_unit(scorer: Scorer) -> None:
    with pytest.raises(PromptError) as refusal:
        scorer.prompts.remove("A")
    assert refusal.value.code == "prompt.fixed-set"


def test_the_embedding_is_not_brought_to_unit_length(tmp_path: Path, pixels: Tensor) -> None:
    state = tuned_state()
    once = logits_of(load(write_tuned(tmp_path / "once", state)), pixels)
    bias = state["classifier.bias"].double()
    state["visual.head.proj.weight"] = 3 * state["visual.head.proj.weight"]
    thrice = logits_of(load(write_tuned(tmp_path / "thrice", state)), pixels)
    assert (once - bias).abs().max() > 0.1
    assert (thrice - bias - 3 * (once - bias)).abs().max() <= 3 * LOGITS
    embedding = arithmetic.projected_tokens(state, pixels, 4)[:, 0]
    assert not torch.allclose(embedding.norm(dim=1), torch.ones(4).double(), atol=0.1)


CONTAINERS: dict[str, Any] = {
    "a state dict": lambda s: s,
    "Lightning's": lambda s: {"state_dict": {f"model.{key}": value for key, value in s.items()}, "epoch": 3},
    "a probe's": lambda s: {
        "state_dict": {k if k.startswith("classifier") else f"model.{k}": v for k, v in s.items()}
    },
    "data-parallel": lambda s: {f"module.model.{key}": value for key, value in s.items()},
    "with the text side": lambda s: {
        **s, "logit_scale": torch.ones(()), "text.transformer.embeddings.x": torch.full((2,), math.nan),
    },
}  # fmt: skip


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_way_to_store_it_is_read(tmp_path: Path, pixels: Tensor, container: str) -> None:
    state = tuned_state()
    path = write_tuned(tmp_path, state).with_name("probe.ckpt")
    torch.save(CONTAINERS[container](state), path)
    model = load(path, classes=ORDER)
    assert (logits_of(model, pixels) - plain_logits(state, pixels)).abs().max() <= LOGITS
    unread = [note for note in model.notes if "text side are not read" in note]
    assert unread == (["2 tensors of a text side are not read"] if "text" in container else [])


def test_half_precision_is_used_as_float32(tmp_path: Path, pixels: Tensor) -> None:
    state = {key: value.half() for key, value in tuned_state().items()}
    model = load(write_tuned(tmp_path, state))
    assert (logits_of(model, pixels) - plain_logits(state, pixels)).abs().max() <= LOGITS


def test_the_order_of_the_classes_is_the_files_or_the_recipes(tmp_path: Path) -> None:
    state = tuned_state()
    stated, silent = write_tuned(tmp_path / "1", state), write_tuned(tmp_path / "2", state, None)
    rows = state["classifier.weight"].numpy()
    for model in (load(stated), load(stated, classes=ORDER), load(silent, classes=ORDER)):
        assert model.heads[0].classes is not None
        assert list(model.heads[0].classes) == ORDER
        assert all(
            (model.heads[0].classes[name]["class_vector"] == rows[n]).all() for n, name in enumerate(ORDER)
        )
    with pytest.raises(BuildError, match=rf"{NAME} names its classes otherwise.*B, A, D, C.*\['A', 'B'"):
        load(stated, classes=list("ABCD"))
    for wrong in (None, ["B", "A", "D"], ["B", "A", "A", "C"], "BADC", ["B", "A", "D", 4], []):
        options = {} if wrong is None else {"classes": wrong}
        with pytest.raises(BuildError, match="order of the classes must be known") as refusal:
            load(silent, **options)
        assert refusal.value.artefact == "model_options.classes"
    with pytest.raises(BuildError, match="order of the classes must be known"):
        load(write_tuned(tmp_path / "3", state, ["A", "B"]))
    with pytest.raises(BuildError, match=r"checkpoint\.config.*a JSON list"):
        load(write_tuned(tmp_path / "4", state, "A, B, C, D"))


SPOILT: dict[str, tuple[Any, str]] = {
    "no bias": (lambda s: s.pop("classifier.bias"), "missing classifier.bias"),
    "another number of biases": (
        lambda s: s.update({"classifier.bias": torch.zeros(3)}), "shape of classifier.bias: expected (4,)",
    ),
    "another width": (
        lambda s: s.update({"classifier.weight": torch.zeros(4, 31)}),
        "shape of classifier.weight: expected (*, 32), found (4, 31)",
    ),
    "no matrix": (
        lambda s: s.update({"classifier.weight": torch.zeros(4)}),
        "shape of classifier.weight: expected (*, 32), found (4,)",
    ),
    "no classifier but its bias": (lambda s: s.pop("classifier.weight"), "missing classifier.weight"),
    "no class": (
        lambda s: s.update({"classifier.weight": torch.zeros(0, 32), "classifier.bias": torch.zeros(0)}),
        "shape of classifier.weight: expected (*, 32), found (0, 32)",
    ),
    "NaN": (lambda s: s["classifier.weight"].fill_(math.nan), "not finite: classifier.weight"),
    "infinite": (lambda s: s["visual.trunk.norm.bias"].fill_(math.inf), "not finite: visual.trunk.norm.bias"),
    "a key is missing": (lambda s: s.pop("visual.trunk.norm.weight"), "missing visual.trunk.norm.weight"),
    "a key too many": (
        lambda s: s.update({"classifier.2.weight": torch.zeros(2)}), "unexpected classifier.2.weight",
    ),
    "no image tower": (
        lambda s: [s.pop(key) for key in list(s) if key.startswith("visual.trunk.")], "no tensor of this",
    ),
    "one name twice": (
        lambda s: s.update({"model.classifier.bias": torch.zeros(4)}), "found classifier.bias",
    ),
    "another position table": (
        lambda s: s.update({"visual.trunk.pos_embed": torch.zeros(1, 50, 64)}), "197 positions for 224 x 224",
    ),
}  # fmt: skip


@pytest.mark.parametrize("spoilt", SPOILT)
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path, spoilt: str) -> None:
    change, named = SPOILT[spoilt]
    state = tuned_state()
    change(state)
    with pytest.raises(BuildError) as refusal:
        load(write_tuned(tmp_path, state))
    assert named in str(refusal.value)
    assert refusal.value.artefact == NAME


def test_without_its_configuration_it_is_refused(tmp_path: Path) -> None:
    path = write_tuned(tmp_path, tuned_state())
    (tmp_path / CONFIG).unlink()
    with pytest.raises(BuildError, match=r"checkpoint\.config") as refusal:
        load(path)
    assert refusal.value.artefact == CONFIG


OPTIONS_REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "context": ({"context": 20}, "context"),
    "resize beside the study's": ({"resize": "squash"}, "resize"),
    "unknown preprocessing": ({"preprocessing": "imagenet"}, "preprocessing"),
    "no name": ({"preprocessing": ["density-study"]}, "preprocessing"),
    "heads of no number": ({"image_heads": "4"}, "image_heads"),
}


@pytest.mark.parametrize("case", OPTIONS_REFUSED)
def test_options_that_mean_nothing_are_refused(tmp_path: Path, case: str) -> None:
    options, named = OPTIONS_REFUSED[case]
    with pytest.raises(BuildError) as refusal:
        load(write_tuned(tmp_path, tuned_state()), **options)
    assert (refusal.value.code, refusal.value.artefact) == ("recipe.invalid", f"model_options.{named}")


def test_a_text_model_is_refused_and_unknown_heads_are_asked_for(tmp_path: Path) -> None:
    path = write_tuned(tmp_path, tuned_state())
    with pytest.raises(BuildError, match="reads no text"):
        FAMILY.load(path, FOLDER / "bert", OPTIONS)
    with pytest.raises(BuildError, match="so it must be said") as refusal:
        FAMILY.load(path, None, {"preprocessing": "density-study"})
    assert refusal.value.artefact == "model_options.image_heads"
    with pytest.raises(BuildError, match="has no classifier"):
        FAMILY.load(FOLDER / WEIGHTS, None, {"classes": ORDER})


def test_the_configured_pixels_are_the_default(tmp_path: Path) -> None:
    path = write_tuned(tmp_path, tuned_state())
    own = FAMILY.load(path, None, {"image_heads": 4})
    assert own.preprocessing == FAMILY.load(FOLDER / WEIGHTS, None, {}).preprocessing
    study = load(path)
    assert (study.preprocessing.levels, study.preprocessing.normalise.std) == ("float32", [1.0] * 3)
    assert "preprocessing: density-study" in study.notes


RELATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "pair": ({"relation": "pair", "groups": None}, "cannot score this relation"),
    "prompts": ({"findings": [{"key": key, "prompt": "fatty"} for key in "ABCD"]}, "reads no text"),
    "a class left out": ({"findings": [{"key": key} for key in "ABC"], "groups": None}, "each once"),
    "templates": ({"templates": [" The breast is {}"]}, "has no text"),
}


@pytest.mark.parametrize("case", RELATIONS)
def test_a_recipe_that_does_not_fit_is_refused(tmp_path: Path, shared_dir: Path, case: str) -> None:
    changes, message = RELATIONS[case]
    path = write_recipe(tmp_path, **changes)
    with pytest.raises(BuildError, match=message):
        build(path, tmp_path / "new.bundle", cache=shared_dir / "cache")


def test_classes_of_their_own_get_the_logistic_function(tmp_path: Path, pixels: Tensor) -> None:
    """One class, present or not: no alternatives, so no softmax."""
    state = tuned_state(classes=1)
    write_tuned(tmp_path, state, ["dense"])
    changes = {"relation": "independent", "groups": None, "findings": [{"key": "dense"}]}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(**changes)), encoding="utf-8")
    build(path, tmp_path / "new.bundle", cache=tmp_path / "cache")
    with Scorer.open(tmp_path / "new.bundle", site=None) as scorer:
        score = scorer.score(image_path("tall"), modality="MG").scores["dense"]
    expected = float(plain_logits(state, pixels[:1])[0, 0])
    assert score.logit == pytest.approx(expected, abs=LOGITS)
    assert score.sigmoid == pytest.approx(1 / (1 + math.exp(-expected)), abs=SHARES)
    assert score.softmax is None


def test_a_tower_that_timm_knows_needs_no_heads(tmp_path: Path, pixels: Tensor) -> None:
    """`vit_tiny_patch16_224` has three; told otherwise, it is refused."""
    draw = torch.Generator().manual_seed(2)
    tower = create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0)
    tensors = {f"visual.trunk.{key}": value for key, value in tower.state_dict().items()}
    state = {
        **tensors,
        "visual.head.proj.weight": torch.randn(24, 192, generator=draw) / 14,
        "classifier.weight": torch.randn(4, 24, generator=draw),
        "classifier.bias": torch.randn(4, generator=draw),
    }
    path = write_tuned(tmp_path, state)

    def rename(content: dict[str, Any]) -> None:
        content["model_cfg"]["embed_dim"] = 24
        content["model_cfg"]["vision_cfg"]["timm_model_name"] = "vit_tiny_patch16_224"

    change_json(tmp_path / CONFIG, rename)
    model = FAMILY.load(path, None, {"preprocessing": "density-study"})
    expected = plain_logits(state, pixels, heads=3)
    assert (logits_of(model, pixels) - expected).abs().max() <= LOGITS
    assert any("3 attention heads (as timm has it)" in note for note in model.notes)
    with pytest.raises(BuildError, match="3, as vit_tiny_patch16_224 has") as refusal:
        FAMILY.load(path, None, {"image_heads": 4})
    assert refusal.value.artefact == "model_options.image_heads"


def test_the_tolerance_goes_with_the_rows(tmp_path: Path, pixels: Tensor) -> None:
    """The spread of features is folded into a probe's rows, and multiplies what float32 rounds."""
    state = tuned_state()
    longest, bias = float(state["classifier.weight"].norm(dim=1).max()), state["classifier.bias"].abs().max()
    least = 1e-6 * max(1.0, float(bias))
    base = load(write_tuned(tmp_path / "1", state))
    assert base.heads[0].score_tolerance == pytest.approx(2e-5 * longest + least)
    state["classifier.weight"] *= 100
    (long,) = load(write_tuned(tmp_path / "2", state)).heads
    assert long.score_tolerance == pytest.approx(2e-3 * longest + least)
    with torch.inference_mode():
        answers = long.reference(pixels.float(), [EncodedFinding(class_name=name) for name in ORDER])
    assert np.abs(answers.logits - plain_logits(state, pixels).numpy()).max() <= long.score_tolerance
    state["classifier.weight"] *= 1e6
    assert load(write_tuned(tmp_path / "3", state)).heads[0].score_tolerance == LARGEST_TOLERANCE
    state["classifier.weight"].zero_()
    assert load(write_tuned(tmp_path / "4", state)).heads[0].score_tolerance == pytest.approx(least)
