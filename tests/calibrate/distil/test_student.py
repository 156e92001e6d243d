from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from promptray.calibrate.distil.student import Student
from promptray.calibrate.distil.teacher import tower_shapes
from promptray.calibrate.distil.weights import load_tower
from promptray.export.families.base import Side
from promptray.runtime.errors import BuildError
from tests.calibrate.distil import pupils

SMALL = pupils.small()


def student(name: str, shapes: Any = ((16, 8),), grid: tuple[int, int] = (4, 4)) -> Student:
    torch.manual_seed(0)
    return Student(name, SMALL.preprocessing, shapes, grid).eval()


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("test_vit", (2, 2)),
        ("test_resnet", (1, 1)),
        ("test_convnext", (1, 1)),
        ("swin_tiny_patch4_window7_224", (1, 1)),
    ],
)
def test_towers_of_every_kind_are_brought_to_the_heads_grid(name: str, grid: tuple[int, int]) -> None:
    made = student(name, [(16, 8), (17, 6), (5,)])
    assert made.student_grid == grid
    with torch.inference_mode():
        found = made(torch.randn(3, 3, 32, 32))
    assert [tuple(each.shape) for each in found] == [(3, 16, 8), (3, 17, 6), (3, 5)]


def test_positions_stay_where_they_are() -> None:
    made = student("test_vit", grid=(2, 2), shapes=[(4, 8)])
    with torch.inference_mode():
        features, _ = made._features(torch.randn(1, 3, 32, 32))
        tokens = made.tower.forward_features(torch.randn(1, 3, 32, 32))
        for row in range(2):
            for column in range(2):
                changed = features.clone()
                changed[:, :, row, column] += torch.randn(features.shape[1])
                moved = made.features[0](changed, None) - made.features[0](features, None)
                where = moved.abs().sum(dim=-1)[0]
                assert where.nonzero().flatten().tolist() == [2 * row + column]
    assert tokens.shape[1] == 4 + made.tower.num_prefix_tokens


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vit_tiny_patch16_225", "vit_tiny_patch16_224"),
        ("hf-hub:somebody/something", "no such architecture"),
        ("local-dir:/tmp", "no such architecture"),
        ("inception_v3", "32 x 32"),
    ],
)
def test_a_tower_that_cannot_be_is_refused(name: str, said: str) -> None:
    with pytest.raises(BuildError) as refused:
        student(name)
    assert refused.value.code == "distil.student"
    assert said in str(refused.value)


def test_a_teacher_of_other_shapes_is_refused_with_what_can_be() -> None:
    with pytest.raises(BuildError) as refused:
        student("test_vit", [(4, 16, 17)])
    assert refused.value.code == "distil.student"
    assert "positions (batch" in str(refused.value)


def test_the_grid_of_a_model_without_maps_is_a_square() -> None:
    import dataclasses

    class All(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor]:
            return (torch.zeros(len(pixels), self.count, 8),)

    module = All()
    heads = [dataclasses.replace(head, map=None) for head in SMALL.heads]
    side = Side(module, SMALL.image.inputs, SMALL.image.outputs)
    model = dataclasses.replace(SMALL, image=side, heads=heads)
    module.count = 9  # type: ignore[assignment]
    assert tower_shapes(model) == ([(9, 8)], (3, 3))
    module.count = 10  # type: ignore[assignment]
    with pytest.raises(BuildError) as refused:
        tower_shapes(model)
    assert refused.value.code == "distil.student"


def test_weights_that_read_colours_are_added_up_for_a_student_of_one_plane(tmp_path: Path) -> None:
    """Of a grey picture the layer gives the same as the published one of its three planes."""
    import timm

    preprocessing = pupils.carzero().preprocessing
    made = Student("test_vit", preprocessing, ((16, 8),), (4, 4)).eval()
    size = (preprocessing.height, preprocessing.width)
    published = timm.create_model("test_vit", num_classes=7, img_size=size).eval()
    safetensors.torch.save_file(published.state_dict(), tmp_path / "own.safetensors")
    load_tower(made, tmp_path / "own.safetensors")
    picture = torch.rand(1, 1, *size)
    with torch.no_grad():
        ours, theirs = (
            made.tower.patch_embed(picture),  # type: ignore[operator]
            published.patch_embed(picture.expand(1, 3, *size)),
        )
    torch.testing.assert_close(ours, theirs)
    others = {key: each for key, each in published.state_dict().items() if not key.startswith("head")}
    own = made.tower.state_dict()
    assert all(torch.equal(own[key], each) for key, each in others.items() if "patch_embed.proj" not in key)
    spoilt = {**published.state_dict(), "patch_embed.proj.weight": torch.zeros(64, 4, 16, 16)}
    safetensors.torch.save_file(spoilt, tmp_path / "four.safetensors")
    with pytest.raises(BuildError) as refused:
        load_tower(made, tmp_path / "four.safetensors")
    assert refused.value.code == "checkpoint.layout"


def test_weights_of_the_architecture_are_begun_with(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(5)
    published = timm.create_model("test_vit", num_classes=7, img_size=32).state_dict()
    safetensors.torch.save_file(published, tmp_path / "own.safetensors")
    made = student("test_vit")
    load_tower(made, tmp_path / "own.safetensors")
    assert all(torch.equal(each, published[key]) for key, each in made.tower.state_dict().items())
    with pytest.raises(BuildError) as refused:
        load_tower(student("test_resnet"), tmp_path / "own.safetensors")
    assert refused.value.code == "checkpoint.layout"
    torch.save(published, tmp_path / "own.pth")
    for name, code in (("own.pth", "checkpoint.format"), ("none.safetensors", "checkpoint.not-found")):
        with pytest.raises(BuildError) as refused:
            load_tower(made, tmp_path / name)
        assert refused.value.code == code
