from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from promptray.calibrate.distil.checkpoint import FACTS, WEIGHTS, StudentFacts, student_model
from promptray.calibrate.distil.own_tower import OwnTower, Stack, evenly_spaced, stacks
from promptray.calibrate.distil.run import distil
from promptray.calibrate.distil.teacher import encode
from promptray.export.families import family
from promptray.export.families.base import LoadedModel
from promptray.export.onnx_graph import export_graph
from promptray.runtime.errors import BuildError
from tests import chexzero_tiny, kad_tiny, squeezenet_tiny
from tests.calibrate.distil import pupils

FAMILIES: dict[str, Callable[[], LoadedModel]] = {
    "carzero": pupils.carzero,
    "asg": lambda: pupils.asg("prompts", "tags"),
    "convnext": pupils.convnext,
    "open_clip": pupils.open_clip,
}

SMALL = pupils.small()


def example(model: LoadedModel, count: int = 1) -> torch.Tensor:
    facts = model.preprocessing
    torch.manual_seed(0)
    return torch.randn(count, facts.channels, facts.height, facts.width)


def test_blocks_are_evenly_spaced_as_distilberts() -> None:
    assert evenly_spaced(12, 6) == [0, 2, 4, 7, 9, 11]
    assert evenly_spaced(12, 1) == [0]
    for count in range(1, 25):
        for kept in range(1, count + 1):
            found = evenly_spaced(count, kept)
            assert len(set(found)) == kept
            assert set(found) <= set(range(count))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_copy_of_the_whole_tower_gives_the_teachers_own_bits(name: str) -> None:
    model = FAMILIES[name]()
    own = OwnTower(model, "all").eval()
    pixels = example(model, 2)
    with torch.inference_mode():
        for ours, theirs in zip(own(pixels), encode(model.image.module, pixels), strict=True):
            assert torch.equal(ours, theirs)
    assert all(each.requires_grad for each in own.parameters())
    theirs = {id(each) for each in model.image.module.parameters()}
    assert not theirs & {id(each) for each in own.parameters()}


@pytest.mark.parametrize("name", FAMILIES)
def test_fewer_blocks_keep_the_shapes_and_nothing_behind_the_tower(name: str) -> None:
    model = FAMILIES[name]()
    found = stacks(model.image.module, example(model))
    fewest = OwnTower(model, len(found)).eval()
    whole = OwnTower(model, "all")
    left = sum(each.numel() for each in fewest.parameters())
    assert left < sum(each.numel() for each in whole.parameters())
    assert fewest.notes
    pixels = example(model, 2)
    outputs, theirs = fewest(pixels), encode(model.image.module, pixels)
    assert [each.shape for each in outputs] == [each.shape for each in theirs]
    # Every weight that is kept is one that the output depends on.
    torch.stack([each.sum() for each in outputs]).sum().backward()
    assert all(each.grad is not None for each in fewest.parameters())


def test_kept_blocks_are_copies_of_the_teachers() -> None:
    model = pupils.carzero()
    own = OwnTower(model, 2)
    theirs = model.image.module.get_submodule("encoder.model.blocks")
    kept = own.tower.get_submodule("encoder.model.blocks")
    for ours, number in zip(kept, (0, 2), strict=True):
        for name, each in theirs.get_submodule(str(number)).state_dict().items():
            assert torch.equal(ours.state_dict()[name], each)
    assert own.notes == ["of the 3 blocks of encoder.model.blocks it has 1, 3"]


def chexzero(folder: Path) -> LoadedModel:
    sizes = chexzero_tiny.Sizes()
    path = chexzero_tiny.write_folder(folder, sizes, chexzero_tiny.random_state(sizes, 1))
    return family("chexzero").load(path, None, {})


def kad(folder: Path) -> LoadedModel:
    sizes = kad_tiny.Sizes(blocks=(3, 4, 2, 1))
    return family("kad").load(*kad_tiny.write(folder, sizes), {"image_size": 64})


def squeezenet(folder: Path) -> LoadedModel:
    options = {"preprocessing": "square", "classes": squeezenet_tiny.CLASSES}
    path = folder / "model.pth"
    torch.save(squeezenet_tiny.random_state(1), path)
    return family("squeezenet").load(path, None, options)


MORE: dict[str, tuple[Callable[[Path], LoadedModel], list[int]]] = {
    "chexzero": (chexzero, [3]),
    "kad": (kad, [2, 3]),
    "squeezenet": (squeezenet, []),
}


@pytest.mark.parametrize("name", MORE)
def test_blocks_of_other_families_are_found(name: str, tmp_path: Path) -> None:
    made, lengths = MORE[name]
    model = made(tmp_path)
    assert [len(stack.blocks) for stack in stacks(model.image.module, example(model))] == lengths


class _Stages(nn.Module):
    """Two stages of like blocks, as a ResNet has them: the first block of each is another kind."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), *(nn.Conv2d(8, 8, 1) for _ in range(5)))
        self.second = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2)), nn.ReLU(), nn.ReLU())
        self.unused = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))

    def encode(self, pixels: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.second(self.first(pixels)).flatten(2).transpose(1, 2),)

    def finish(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return patches.mean(dim=1), patches

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.finish(*self.encode(pixels))


def staged() -> LoadedModel:
    torch.manual_seed(3)
    return dataclasses.replace(SMALL, image=dataclasses.replace(SMALL.image, module=_Stages().eval()))


def test_stages_keep_their_shares() -> None:
    model = staged()
    found = stacks(model.image.module, example(model))
    assert found == [Stack("first", range(1, 6)), Stack("second", range(2))]
    own = OwnTower(model, 4)
    assert [len(own.tower.first), len(own.tower.second)] == [1 + 3, 1 + 2]
    assert not hasattr(own.tower, "unused")
    assert own.tower.first[0].weight.shape == (8, 3, 8, 8)


@pytest.mark.parametrize(
    ("model", "layers", "said"),
    [
        (SMALL, 1, "a tower of small"),
        (staged(), 1, "5 in first; 2 in second"),
        (staged(), 7, "5 in first; 2 in second"),  # all of them: no smaller, so no student's limits
        (staged(), 8, "5 in first; 2 in second"),
    ],
)
def test_blocks_that_are_not_there_are_refused(model: LoadedModel, layers: int, said: str) -> None:
    with pytest.raises(BuildError) as refused:
        OwnTower(model, layers)
    assert refused.value.code == "distil.student"
    assert said in str(refused.value)
    assert "layers: all" in str(refused.value.cure)


def test_a_tower_of_fewer_blocks_learns_and_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    model = staged()
    given = {"student": "teacher", "layers": 3, "epochs": 3}

    def run(folder: Path, last: int | None) -> StudentFacts:
        def progress(stage: str, message: str, fraction: float) -> None:
            if last is not None and message.startswith(f"epoch {last}:"):
                raise KeyboardInterrupt

        chosen, settings = pupils.findings(model), pupils.settings(**given)
        return distil(model, chosen, settings, pupils.images(48, model), folder, progress)

    facts = run(tmp_path / "whole", None)
    assert facts.history[facts.best].val_loss < facts.history[0].val_loss
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", 1)
    run(tmp_path / "killed", None)
    for name in (WEIGHTS, FACTS):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    student = student_model(model, tmp_path / "whole")
    assert any("own tower with 3 layers" in note for note in student.notes)
    assert any("blocks of first it has 1, 5" in note for note in student.notes)
    graph = ort.InferenceSession(export_graph(student.image, "image"))
    pixels = example(model, 2)
    with torch.inference_mode():
        expected = student.image.module(pixels)
    for found, wanted in zip(graph.run(None, {"pixels": pixels.numpy()}), expected, strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)
