"""Every ConvNeXt that timm names, at small sizes: against timm's own forward pass, or refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from promptray import Scorer
from promptray.export.build import build
from promptray.export.families import convnext_checkpoint, family
from promptray.export.families.base import LoadedModel
from promptray.export.families.convnext_checkpoint import ConvNeXtCheckpoint
from promptray.export.families.convnext_pixels import preprocessing_of
from promptray.export.torchvision_guard import ensure_torchvision_imports
from promptray.runtime.bundle.image_rules import CentreCrop, ResizeShorterSide, Squash
from promptray.runtime.errors import BuildError
from promptray.runtime.text import EncodedFinding
from tests.convnext_tiny import write_recipe

ensure_torchvision_imports()

import timm  # noqa: E402 - timm imports torchvision
import torchvision  # noqa: E402

NAMES = timm.list_models(module="convnext")
CLASSES = ["A", "B", "C", "D"]
SMALL: dict[str, Any] = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}
#: Of these a logit does not split exactly over positions.
NO_MAP = {
    "convnext_tiny_hnf", "convnext_large_mlp", "convnext_atto_rms", "convnext_zepto_rms",
    "convnext_zepto_rms_ols",
}  # fmt: skip
#: What a state dict alone does not describe: another stem, norm or head.
NEEDS_NAME = NO_MAP | {name for name in NAMES if name.endswith("_ols")}
#: What it describes with other settings than the usual ones.
OTHER_SETTINGS = {"convnext_xxlarge", "test_convnext", "test_convnext2", "test_convnext3"}


def create(name: str, **changes: Any) -> Any:
    """Make timm's network at small sizes, with weights that let every layer count."""
    torch.manual_seed(11)
    model = timm.create_model(name, num_classes=len(CLASSES), **{**SMALL, **changes})
    with torch.no_grad():
        for tensor in model.parameters():
            tensor += 0.2 * torch.randn(tensor.shape)
    return model.eval()


def load(path: Path, **options: Any) -> LoadedModel:
    given = {"preprocessing": "squash", "image_size": 64, "classes": CLASSES, **options}
    return family("convnext").load(path, None, given)


@pytest.fixture
def small_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let timm's names stand for small networks; all else of them is timm's."""
    monkeypatch.setattr(convnext_checkpoint.timm, "create_model", partial(timm.create_model, **SMALL))


def logits_of(loaded: LoadedModel, pixels: torch.Tensor) -> np.ndarray[Any, Any]:
    """Return what the sides, which become the graphs, give."""
    (head,) = loaded.heads
    assert head.classes is not None
    bank = [torch.from_numpy(np.stack([each[t.name] for each in head.classes.values()])) for t in head.bank]
    with torch.inference_mode():
        answers: torch.Tensor = head.side.module(*loaded.image.module(pixels), *bank)[0]
    return answers.numpy()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_gives_timms_own_scores(name: str, small_timm: None, tmp_path: Path) -> None:
    made = create(name)
    torch.save(made.state_dict(), tmp_path / "small.pth")
    loaded = load(tmp_path / "small.pth", timm_name=name)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = made(pixels).numpy()
    answers = loaded.heads[0].reference(pixels, [EncodedFinding(class_name=each) for each in CLASSES])
    bound = loaded.heads[0].score_tolerance
    assert np.abs(answers.logits - expected).max() <= bound
    assert np.abs(logits_of(loaded, pixels) - expected).max() <= bound
    assert expected.std(axis=0).min() > 100 * bound  # so the bound tells something
    assert (loaded.heads[0].map is None) == (name in NO_MAP)
    assert any(name in note for note in loaded.notes)


@pytest.mark.parametrize("name", sorted(set(NAMES) - OTHER_SETTINGS))
def test_without_the_name_it_is_the_same_or_refused(name: str, tmp_path: Path) -> None:
    made = create(name)
    torch.save(made.state_dict(), tmp_path / "small.pth")
    if name in NEEDS_NAME:
        with pytest.raises(BuildError) as refusal:
            load(tmp_path / "small.pth")
        assert refusal.value.code == "checkpoint.layout"
        assert "model_options.timm_name" in str(refusal.value.cure)
        return
    loaded = load(tmp_path / "small.pth")
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        difference = np.abs(logits_of(loaded, pixels) - made(pixels).numpy()).max()
    assert difference <= loaded.heads[0].score_tolerance
    assert "LayerNorm's eps 1e-06 (assumed), activation gelu (assumed): no tensor tells" in loaded.notes


@pytest.mark.parametrize("name", sorted(OTHER_SETTINGS))
def test_widths_of_other_settings_need_them(name: str, tmp_path: Path) -> None:
    """At their own widths, and one block a stage."""
    own = timm.create_model(name, device="meta")
    widths = tuple(facts["num_chs"] for facts in own.feature_info)
    made = timm.create_model(name, num_classes=4, depths=(1, 1, 1, 1), dims=widths, device="meta")
    state = {key: torch.zeros(()).expand(value.shape) for key, value in made.state_dict().items()}
    with pytest.raises(BuildError, match="another eps or activation") as refusal:
        convnext_checkpoint._model_of_tensors(state, {}, "x.pth")
    assert name in str(refusal.value.expected)


def test_no_other_name_has_settings_of_its_own() -> None:
    usual = timm.create_model("convnext_tiny", device="meta")
    for name in NAMES:
        own = timm.create_model(name, device="meta")
        settings = [
            (type(block.mlp.act), block.norm.eps)
            for model in (own, usual)
            for block in model.stages[0].blocks
        ]
        assert (len(set(settings)) > 1) == (name in OTHER_SETTINGS), name


def test_settings_that_are_said_are_used(tmp_path: Path) -> None:
    made = create("test_convnext3", norm_eps=1e-3)
    torch.save(made.state_dict(), tmp_path / "small.pth")
    loaded = load(tmp_path / "small.pth", norm_eps=1e-3, activation="silu")
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = made(pixels).numpy()
    bound = loaded.heads[0].score_tolerance
    assert np.abs(logits_of(loaded, pixels) - expected).max() <= bound
    assert np.abs(logits_of(load(tmp_path / "small.pth"), pixels) - expected).max() > 100 * bound
    assert "LayerNorm's eps 0.001, activation silu: no tensor tells" in loaded.notes


def test_a_name_that_is_not_that_of_the_weights_is_refused(tmp_path: Path) -> None:
    torch.save(create("convnext_atto").state_dict(), tmp_path / "small.pth")
    with pytest.raises(BuildError, match="do not fit") as refusal:
        load(tmp_path / "small.pth", timm_name="convnext_atto")  # which is larger
    assert "timm_name" in str(refusal.value.cure)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"timm_name": "resnet50"}, "timm_name"),
        ({"timm_name": 3}, "timm_name"),
        ({"norm_eps": "1e-6"}, "norm_eps"),
        ({"norm_eps": 0.0}, "norm_eps"),
        ({"norm_eps": True}, "norm_eps"),
        ({"activation": "tanh"}, "activation"),
        ({"activation": ["gelu"]}, "activation"),
        ({"preprocessing": "imagenet"}, "resize"),
        ({"preprocessing": "imagenet", "resize": 32}, "resize"),
        ({"preprocessing": "imagenet", "resize": True}, "resize"),
        ({"preprocessing": "squash", "resize": 72}, "resize"),
        ({"preprocessing": ["squash"]}, "preprocessing"),
        ({"preprocessing": "timm"}, "timm_name"),
        ({"preprocessing": "timm", "timm_name": "convnext_atto"}, "timm_name"),
        ({"preprocessing": "timm", "timm_name": "convnext_atto.unknown"}, "timm_name"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused(
    options: dict[str, Any], named: str, small_timm: None, tmp_path: Path
) -> None:
    torch.save(create("convnext_atto").state_dict(), tmp_path / "small.pth")
    with pytest.raises(BuildError) as refusal:
        load(tmp_path / "small.pth", **options)
    assert (refusal.value.code, refusal.value.artefact) == ("recipe.invalid", f"model_options.{named}")


@pytest.mark.parametrize("size", ["Tiny", "Small", "Base", "Large"])
def test_torchvisions_four_have_their_own_resize(size: str) -> None:
    weights = torchvision.models.get_model_weights(f"convnext_{size.lower()}")["IMAGENET1K_V1"]
    published = weights.transforms()
    with torch.device("meta"):
        own = getattr(torchvision.models, f"convnext_{size.lower()}")(num_classes=4).state_dict()
    state = convnext_checkpoint._timm_state(own)
    with torch.device("meta"):
        model = convnext_checkpoint._model_of_tensors(state, {}, "published.pth")
    assert {key: value.shape for key, value in model.state_dict().items()} == {
        key: value.shape for key, value in state.items()
    }
    found = ConvNeXtCheckpoint({}, model, from_torchvision=True, settings={}, note="")
    rule, said = preprocessing_of(found, {"preprocessing": "imagenet"})
    assert rule.steps == [
        ResizeShorterSide(size=published.resize_size[0], interpolation=published.interpolation.value),
        CentreCrop(size=published.crop_size[0]),
    ]
    assert said["resize"] == published.resize_size[0]
    assert (rule.normalise.mean, rule.normalise.std) == (list(published.mean), list(published.std))
    of_timm = ConvNeXtCheckpoint({}, model, from_torchvision=False, settings={}, note="")
    for unknown, options in ((of_timm, {}), (found, {"image_size": 256})):
        with pytest.raises(BuildError, match="the shorter side"):
            preprocessing_of(unknown, {"preprocessing": "imagenet", **options})


@pytest.mark.parametrize("tag", ["fb_in1k", "fb_in22k_ft_in1k_384"])
def test_timms_preprocessing_is_that_of_its_weights(tag: str, small_timm: None, tmp_path: Path) -> None:
    torch.save(create("convnext_tiny").state_dict(), tmp_path / "small.pth")
    given = {"preprocessing": "timm", "timm_name": f"convnext_tiny.{tag}", "classes": CLASSES}
    rule = family("convnext").load(tmp_path / "small.pth", None, given).preprocessing
    expected: list[Any] = [ResizeShorterSide(size=256, interpolation="bicubic"), CentreCrop(size=224)]
    assert rule.steps == (expected if tag == "fb_in1k" else [Squash(size=384, interpolation="bicubic")])


@pytest.mark.parametrize("name", ["convnext_zepto_rms_ols", "convnext_large_mlp"])
def test_a_network_without_a_map_goes_to_a_bundle(name: str, small_timm: None, tmp_path: Path) -> None:
    torch.save(create(name).state_dict(), tmp_path / "small.pth")
    options = {"preprocessing": "squash", "image_size": 64, "classes": CLASSES, "timm_name": name}
    path = write_recipe(tmp_path, "timm", checkpoint=str(tmp_path / "small.pth"), model_options=options)
    build(path, tmp_path / "new.bundle", cache=tmp_path / "cache")
    with Scorer.open(tmp_path / "new.bundle", site=None) as scorer:
        (head,) = scorer.bundle.manifest.heads
        assert head.map is None
