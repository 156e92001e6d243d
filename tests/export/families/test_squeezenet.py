"""SqueezeNet classifiers against their arithmetic in double; a trained one against its published logits."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from promptray import PromptError, Scorer
from promptray.cli import run
from promptray.export.families import family
from promptray.export.families.base import LoadedModel
from promptray.runtime.bundle.image_rules import CentreCrop, ResizeShorterSide
from promptray.runtime.errors import BuildError
from promptray.runtime.text import EncodedFinding
from tests import squeezenet_tiny as tiny
from tests.carzero_tiny import build_once

TRAINED = Path("weights") / "squeezenet1_1-kermany3"
OPTIONS = {"preprocessing": "square", "classes": tiny.CLASSES, "image_size": tiny.SIDE}


def load(folder: Path, state: Mapping[str, Tensor], **options: Any) -> LoadedModel:
    path = folder / "model.pth"
    torch.save(dict(state), path)
    return family("squeezenet").load(path, None, {**OPTIONS, **options})


def near(found: Any, expected: Any, model: LoadedModel) -> None:
    head = model.heads[0]
    assert head.map is not None
    for ours, theirs, tolerance in zip(
        found, expected, (head.score_tolerance, head.map.tolerance), strict=True
    ):
        assert ours.shape == theirs.shape
        assert np.abs(np.asarray(ours) - theirs).max() <= tolerance < 0.01 * theirs.std()


@pytest.mark.parametrize("version", tiny.STEMS)
@pytest.mark.parametrize("seed", [1, 2])
def test_sides_and_reference_equal_the_arithmetic(version: str, seed: int, tmp_path: Path) -> None:
    state = tiny.random_state(seed, version)
    model = load(tmp_path, {f"model.{key}": value for key, value in state.items()})
    pixels = torch.randn(4, 3, tiny.SIDE, tiny.SIDE, generator=torch.Generator().manual_seed(seed))
    expected = tiny.arithmetic(state, pixels, version)
    head = model.heads[0]
    assert head.classes is not None
    bank = [
        torch.from_numpy(np.stack([entry[facts.name] for entry in head.classes.values()]))
        for facts in head.bank
    ]
    with torch.inference_mode():
        near(head.side.module(*model.image.module(pixels), *bank), expected, model)
    answers = head.reference(pixels, [EncodedFinding(class_name=name) for name in reversed(tiny.CLASSES)])
    near((answers.logits[:, ::-1], np.asarray(answers.maps)[:, ::-1]), expected, model)


@pytest.fixture(scope="module")
def scorer(shared_dir: Path) -> Any:
    with Scorer.open(build_once(shared_dir, "squeezenet", tiny.write_recipe), site=None) as opened:
        yield opened


def test_a_logit_is_the_mean_of_its_map_and_a_share_is_of_all_classes(scorer: Scorer) -> None:
    film = Path(__file__).parents[3] / "export" / "golden" / "normal-1.png"
    prepared = scorer.prepare(film, modality="DX")
    result = scorer.infer(prepared)
    logits = np.array([score.logit for score in result.scores.values()])
    maps = np.stack([result.grid(key) for key in result.scores])
    pixels = torch.from_numpy(prepared.network_input.pixels)
    expected, _ = tiny.arithmetic(tiny.random_state(0), pixels)
    assert np.abs(logits - expected[0]).max() <= scorer.bundle.manifest.heads[0].score_tolerance
    assert np.abs(maps.mean(axis=(1, 2)) - logits).max() <= 1e-5
    assert maps.min() >= 0
    shares = np.exp(logits) / np.exp(logits).sum()
    assert [score.softmax for score in result.scores.values()] == pytest.approx(shares, abs=1e-6)


def test_its_classes_are_one_unit(scorer: Scorer) -> None:
    for change in (lambda: scorer.prompts.add("x", "x"), lambda: scorer.prompts.remove("normal")):
        with pytest.raises(PromptError) as refusal:
            change()
        assert refusal.value.code == "prompt.fixed-set"


def test_the_bank_hangs_on_the_classifier(tmp_path: Path) -> None:
    state = tiny.random_state(1)
    other = {**state, "classifier.1.bias": state["classifier.1.bias"] + 1}
    ours, theirs = (load(tmp_path, each).heads[0].identity for each in (state, other))
    assert ours != theirs


def test_torchvisions_own_preparation_is_its_two_steps(tmp_path: Path) -> None:
    rule = load(tmp_path, tiny.random_state(1), preprocessing="imagenet", image_size=224).preprocessing
    first, second = rule.steps
    assert isinstance(first, ResizeShorterSide)
    assert isinstance(second, CentreCrop)
    assert (first.size, second.size, rule.height) == (256, 224, 224)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"preprocessing": None}, "preprocessing"),
        ({"preprocessing": "squash"}, "preprocessing"),
        ({"preprocessing": "imagenet"}, "resize"),
        ({"resize": 256}, "resize"),
        ({"image_size": 16}, "image_size"),
        ({"image_size": "64"}, "image_size"),
        ({"classes": ["a", "b"]}, "classes"),
        ({"classes": None}, "classes"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_by_name(
    changes: dict[str, Any], name: str, tmp_path: Path
) -> None:
    with pytest.raises(BuildError) as refusal:
        load(tmp_path, tiny.random_state(1), **changes)
    assert refusal.value.code == "recipe.invalid"
    assert refusal.value.artefact == f"model_options.{name}"


def test_names_with_commas_between_are_binding(tmp_path: Path) -> None:
    path = tmp_path / "named.safetensors"
    safetensors.torch.save_file(tiny.random_state(1), path, {"classes": "a, b,c"})
    options = {"preprocessing": "square", "image_size": tiny.SIDE}
    classes = family("squeezenet").load(path, None, options).heads[0].classes
    assert list(classes or ()) == ["a", "b", "c"]
    with pytest.raises(BuildError, match="names its classes otherwise"):
        family("squeezenet").load(path, None, {**options, "classes": ["b", "a", "c"]})
    safetensors.torch.save_file(tiny.random_state(1), path, {"classes": "a, b, c, d"})
    with pytest.raises(BuildError, match="order of the classes"):
        family("squeezenet").load(path, None, options)


@pytest.mark.parametrize("relation", ["independent", "pair"])
def test_only_alternatives_can_be_scored(relation: str, tmp_path: Path) -> None:
    path = tiny.write_recipe(tmp_path, relation=relation)
    assert run(["build", str(path), "-o", str(tmp_path / "x.bundle")]) == 1
    assert not (tmp_path / "x.bundle").exists()


def test_a_trained_one_gives_its_published_logits(data_dir: Path | None, tmp_path: Path) -> None:
    """With ``--data``: every fifth image; without, the arithmetic above is all there is."""
    folder = data_dir / TRAINED if data_dir else None
    if data_dir is None or folder is None or not folder.is_dir():
        pytest.skip("the weights are not committed; give --data")
    stated = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    (size,) = set(stated["preprocessing"]["resize"])
    path = tmp_path / "recipe.yaml"
    content = tiny.recipe(
        folder / "model.safetensors",
        model_options={"preprocessing": "square", "image_size": size},
        findings=[{"key": name} for name in stated["class_order"]],
    )
    path.write_text(json.dumps(content), encoding="utf-8")
    assert run(["build", str(path), "-o", str(tmp_path / "trained.bundle")]) == 0
    with (folder / "reference_logits_dev.csv").open(encoding="utf-8") as file:
        published = list(csv.DictReader(file))[::5]
    with Scorer.open(tmp_path / "trained.bundle", site=None) as scorer:
        for row in published:
            film = data_dir / "cxr" / "images" / f"{row['image_id']}.jpg"
            scores = scorer.score(film, modality="DX").scores
            expected = [float(row[f"logit_{name.split()[0]}"]) for name in stated["class_order"]]
            found = [scores[name].logit for name in stated["class_order"]]
            assert found == pytest.approx(expected, abs=1e-5)  # six decimals are published
