"""Towers for training: what they compute, that they learn, and that what is saved scores the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from promptray.export.families import family
from promptray.export.tunable import Tunable, load_tunable
from promptray.runtime.errors import BuildError
from promptray.runtime.text import EncodedFinding
from tests import carzero_tiny, convnext_tiny, open_clip_tiny
from tests import open_clip_arithmetic as arithmetic
from tests.open_clip_tuned_tiny import tuned_state, write_tuned

CLASSES = ["z", "y", "x"]
CHECKPOINTS: dict[str, tuple[str, Path, dict[str, Any]]] = {
    "dual encoder": (
        "open_clip",
        open_clip_tiny.FOLDER / open_clip_tiny.WEIGHTS,
        {"preprocessing": "density-study", "context": 20},
    ),
    "timm": ("convnext", convnext_tiny.FOLDER / "density_timm.pth", {"preprocessing": "squash"}),
    "torchvision": (
        "convnext",
        convnext_tiny.FOLDER / "density.ckpt",
        {"preprocessing": "imagenet", "resize": 240},
    ),
}


def tunable(name: str) -> Tunable:
    family_name, path, options = CHECKPOINTS[name]
    return load_tunable(family_name, path, None, options)


def head(width: int, seed: int = 3) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(width, len(CLASSES))


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.rand(3, 3, 224, 224, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_what_is_saved_scores_as_the_tower_and_its_head(
    name: str, tmp_path: Path, pixels: torch.Tensor
) -> None:
    made = tunable(name)
    linear, path = head(made.width), tmp_path / "tuned.safetensors"
    made.save(path, linear.weight, linear.bias, CLASSES)
    loaded = family(made.family).load(path, None, made.options)
    assert loaded.heads[0].classes is not None
    assert list(loaded.heads[0].classes) == CLASSES
    assert loaded.preprocessing == made.preprocessing
    answers = loaded.heads[0].reference(pixels, [EncodedFinding(class_name=each) for each in CLASSES])
    with torch.inference_mode():
        expected = linear(made.tower(pixels))
    assert np.abs(answers.logits - expected.numpy()).max() <= 1e-5
    again = load_tunable(made.family, path, None, made.options)
    assert torch.equal(again.tower(pixels[:1]), made.tower(pixels[:1]))


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_weight_learns_and_what_was_learnt_is_saved(
    name: str, tmp_path: Path, pixels: torch.Tensor
) -> None:
    made = tunable(name)
    linear, before = head(made.width), made.tower(pixels).detach().clone()
    assert before.shape == (3, made.width)
    model = nn.Sequential(made.tower, linear)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-2)
    nn.functional.cross_entropy(model(pixels), torch.tensor([0, 1, 2])).backward()
    assert [key for key, value in model.named_parameters() if value.grad is None] == []
    optimiser.step()
    after = made.tower(pixels).detach()
    assert (after - before).abs().max() > 1e-4
    made.save(tmp_path / "tuned.safetensors", linear.weight, linear.bias, CLASSES)
    again = load_tunable(made.family, tmp_path / "tuned.safetensors", None, made.options)
    assert torch.equal(again.tower(pixels), after)


def test_the_embedding_is_projected_and_not_of_unit_length(pixels: torch.Tensor) -> None:
    made, state = tunable("dual encoder"), tuned_state()
    expected = arithmetic.projected_tokens(state, pixels, 4)[:, 0]
    assert (made.tower(pixels) - expected).abs().max() <= open_clip_tiny.RAW
    assert (expected.norm(dim=1) - 1).abs().min() > 0.1


def test_a_tuned_file_is_tuned_further(tmp_path: Path, pixels: torch.Tensor) -> None:
    path = write_tuned(tmp_path, tuned_state())
    further = load_tunable("biomedclip", path, None, {"image_heads": 4, "resize": "squash"})
    assert torch.equal(further.tower(pixels), tunable("dual encoder").tower(pixels))
    assert dict(further.options) == {"image_heads": 4, "resize": "squash"}


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    made = tunable("dual encoder")
    linear, path = head(made.width), tmp_path / "tuned.safetensors"
    for weight, bias in ((linear.weight[:2], linear.bias), (linear.weight[:, :5], linear.bias)):
        with pytest.raises(ValueError, match="3 classes on width 32"):
            made.save(path, weight, bias, CLASSES)
    (tmp_path / open_clip_tiny.CONFIG).write_text("{}")
    with pytest.raises(FileExistsError, match=r"another open_clip_config\.json"):
        made.save(path, linear.weight, linear.bias, CLASSES)
    assert (tmp_path / open_clip_tiny.CONFIG).read_text() == "{}"
    (tmp_path / open_clip_tiny.CONFIG).unlink()
    made.save(path, linear.weight, linear.bias, CLASSES)
    with pytest.raises(FileExistsError):
        made.save(path, linear.weight, linear.bias, CLASSES)


def test_what_cannot_be_tuned_is_refused() -> None:
    folder = carzero_tiny.FOLDER
    with pytest.raises(BuildError, match="cannot be tuned") as refusal:
        load_tunable("carzero", folder / "CARZero_best_model.ckpt", folder / "text_model", {})
    assert refusal.value.code == "recipe.invalid"
    with pytest.raises(BuildError, match="reads no text"):
        load_tunable(
            "convnext", convnext_tiny.FOLDER / "density_timm.pth", folder, {"preprocessing": "squash"}
        )
