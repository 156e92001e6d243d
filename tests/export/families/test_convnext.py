"""ConvNeXt classifiers against the density study's own outputs: torch, graphs through `Scorer`, both layouts.

``tests/data/convnext_tiny/oracle.npz`` holds outputs of the original implementation (see its README).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from promptray import PromptError, Scorer
from promptray.export.build import build
from promptray.export.families import family
from promptray.export.families.base import LoadedModel
from promptray.runtime.errors import BuildError
from promptray.runtime.preprocess import normalise
from promptray.runtime.text import EncodedFinding
from tests.carzero_tiny import build_once
from tests.convnext_tiny import CHECKPOINTS, DESCRIPTIONS, FOLDER, write_recipe

PIXELS, LOGITS, SHARES, MAPS = 5e-6, 1e-5, 5e-6, 5e-5


@pytest.fixture(scope="module")
def oracle() -> dict[str, Any]:
    return dict(np.load(FOLDER / "oracle.npz"))


def load(layout: str = "torchvision", **options: Any) -> LoadedModel:
    given = {"preprocessing": "squash", **options}
    if layout == "timm":
        given.setdefault("classes", list(DESCRIPTIONS))
    return family("convnext").load(FOLDER / CHECKPOINTS[layout], None, given)


@pytest.mark.parametrize("layout", CHECKPOINTS)
def test_torch_sides_and_reference_equal_the_original(layout: str, oracle: dict[str, Any]) -> None:
    model = load(layout)
    assert model.heads[0].classes is not None
    image, head = model.image, model.heads[0].side
    assert image
    assert head
    bank = [
        torch.from_numpy(np.stack([tensors[facts.name] for tensors in model.heads[0].classes.values()]))
        for facts in model.heads[0].bank
    ]
    with torch.inference_mode():
        logits, maps = head.module(*image.module(torch.from_numpy(oracle["images"])), *bank)
    assert np.abs(logits.numpy() - oracle["logits"]).max() <= LOGITS
    assert np.abs(maps.numpy() - oracle["cam"]).max() <= MAPS
    findings = [EncodedFinding(class_name=name) for name in model.heads[0].classes]
    answers = model.heads[0].reference(torch.from_numpy(oracle["images"]), findings)
    assert np.abs(answers.logits - oracle["logits"]).max() <= LOGITS
    assert answers.maps is not None
    assert np.abs(answers.maps - oracle["cam"]).max() <= MAPS


def test_a_logit_is_the_mean_of_its_map_and_a_constant(oracle: dict[str, Any]) -> None:
    parts = oracle["cam"].mean(axis=(2, 3)) + oracle["cam_constant"]
    assert np.abs(parts - oracle["logits"]).max() <= LOGITS


@pytest.fixture(scope="module", params=CHECKPOINTS)
def scorer(request: pytest.FixtureRequest, shared_dir: Path) -> Any:
    name = f"convnext-{request.param}"
    bundle = build_once(shared_dir, name, lambda folder: write_recipe(folder, request.param))
    with Scorer.open(bundle, site=None) as opened:
        yield opened


def test_the_scorer_equals_the_original(scorer: Scorer, oracle: dict[str, Any]) -> None:
    order = list(oracle["class_order"])
    for number, name in enumerate(oracle["image_names"]):
        path = FOLDER / "images" / f"{name}.png"
        prepared = scorer.prepare(path, modality="MG")
        assert np.abs(prepared.network_input.pixels[0] - oracle["images"][number]).max() <= PIXELS
        result = scorer.infer(prepared)
        assert list(result.scores) == list("ABCD")
        columns = [order.index(key) for key in result.scores]
        scores = list(result.scores.values())
        expected = oracle["probabilities"][number][columns]
        assert np.abs([s.logit for s in scores] - oracle["logits"][number][columns]).max() <= LOGITS
        assert np.abs([s.softmax for s in scores] - expected).max() <= SHARES
        maps = np.stack([result.grid(key) for key in result.scores])
        assert np.abs(maps - oracle["cam"][number][columns]).max() <= MAPS
        assert result.summary is not None
        assert result.summary.most_likely == "ABCD"[int(expected.argmax())]
        assert result.summary.expected_rank == pytest.approx(float(expected @ [1, 2, 3, 4]), abs=1e-5)
        assert result.summary.groups["dense"] == pytest.approx(float(expected[2:].sum()), abs=1e-5)
        assert result.summary.groups["not dense"] == pytest.approx(float(expected[:2].sum()), abs=1e-5)


def test_pixels_keep_fractions_of_a_level(scorer: Scorer) -> None:
    picture = scorer.prepare(FOLDER / "images" / "tall.png", modality="MG").network_input.picture
    assert picture.dtype == np.float32
    assert np.abs(picture - picture.round()).max() > 0.1
    whole = normalise(np.zeros((1, 2, 2), np.uint8), scorer.bundle.manifest.preprocessing)
    assert whole.dtype == np.float32


def test_classes_are_one_unit(scorer: Scorer) -> None:
    for change in (lambda: scorer.prompts.add("E", "extremely"), lambda: scorer.prompts.remove("A")):
        with pytest.raises(PromptError) as refusal:
            change()
        assert refusal.value.code == "prompt.fixed-set"


def test_the_order_of_the_classes_must_be_known() -> None:
    with pytest.raises(BuildError, match="order of the classes") as refusal:
        family("convnext").load(FOLDER / "density_timm.pth", None, {"preprocessing": "squash"})
    assert "model_options.classes" in str(refusal.value.artefact)
    for wrong in (["B", "D", "A"], ["B", "D", "A", "A"], "BDAC", ["B", "D", "A", 4]):
        with pytest.raises(BuildError, match="order of the classes"):
            load("timm", classes=wrong)


def test_how_images_are_prepared_must_be_said() -> None:
    with pytest.raises(BuildError, match="must be said"):
        family("convnext").load(FOLDER / "density.ckpt", None, {})
    rule = load(preprocessing="imagenet", resize=236).preprocessing
    assert (rule.levels, rule.height, rule.normalise.mean[0]) == ("uint8", 224, 0.485)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"findings": [{"key": key} for key in "ABC"], "groups": None}, "each once"),
        ({"findings": [{"key": key, "prompt": "fatty"} for key in "ABCD"]}, "reads no text"),
        ({"relation": "pair"}, "cannot score this relation"),
        ({"templates": ["a photo of {}"]}, "has no text"),
        ({"groups": {"dense": ["C", "E"]}}, "a group adds up"),
        ({"groups": {"dense": ["C", "C"]}}, "a group adds up"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path, shared_dir: Path
) -> None:
    path = write_recipe(tmp_path, "timm", **changes)
    with pytest.raises(BuildError, match=message) as refusal:
        build(path, tmp_path / "new.bundle", cache=shared_dir / "cache")
    assert refusal.value.code == "recipe.invalid"


def test_other_sizes_and_version_2(tmp_path: Path) -> None:
    """Depths, widths, kernel and the second version's normalisation come from the tensors."""
    from timm.models.convnext import ConvNeXt

    torch.manual_seed(3)
    made = ConvNeXt(
        num_classes=3,
        depths=(1, 2, 1, 1),
        dims=(8, 16, 24, 32),
        kernel_sizes=5,
        use_grn=True,
        ls_init_value=None,
    ).eval()
    torch.save(made.state_dict(), tmp_path / "v2.pth")
    options = {"preprocessing": "imagenet", "classes": ["x", "y", "z"], "image_size": 64, "resize": 72}
    model = family("convnext").load(tmp_path / "v2.pth", None, options)
    pixels = torch.randn(2, 3, 64, 64)
    answers = model.heads[0].reference(pixels, [EncodedFinding(class_name=name) for name in "zxy"])
    with torch.inference_mode():
        assert np.abs(answers.logits - made(pixels).numpy()[:, [2, 0, 1]]).max() <= 1e-6


def test_a_tensor_that_does_not_belong_is_named(tmp_path: Path) -> None:
    state = torch.load(FOLDER / "density_timm.pth", weights_only=True)
    for change, named in (
        (lambda s: s.pop("head.fc.bias"), "head.fc.bias"),
        (lambda s: s.update({"extra.weight": torch.zeros(1)}), "extra.weight"),
        (lambda s: s.pop("stem.0.weight"), "stem.0.weight"),
    ):
        changed = dict(state)
        change(changed)
        torch.save(changed, tmp_path / "changed.pth")
        options = {"preprocessing": "squash", "classes": list("BDAC")}
        with pytest.raises(BuildError, match=named) as refusal:
            family("convnext").load(tmp_path / "changed.pth", None, options)
        assert refusal.value.code == "checkpoint.layout"


@pytest.mark.parametrize(
    ("factor", "what", "cure"),
    [(1e-6, "could not tell a wrong graph", "less regularisation"), (1e9, "disagree", "more regularisation")],
)
def test_rows_that_leave_nothing_to_compare_are_blamed(
    factor: float, what: str, cure: str, tmp_path: Path, shared_dir: Path
) -> None:
    state = torch.load(FOLDER / "density_timm.pth", weights_only=True)
    state["head.fc.weight"] *= factor
    torch.save(state, tmp_path / "rows.pth")
    path = write_recipe(
        tmp_path, "timm", checkpoint=str(tmp_path / "rows.pth"), relation="independent", groups=None
    )
    with pytest.raises(BuildError, match=what) as refusal:
        build(path, tmp_path / "new.bundle", cache=shared_dir / "cache")
    assert refusal.value.code == "gate.failed"
    assert cure in str(refusal.value.cure)
