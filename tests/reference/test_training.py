"""Training: deterministic, and every part does what it says, on pictures small enough for a test."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from reference.fit import Schedule, Wordings, fit, normalised
from reference.model import reference_sizes
from reference.pictures import DistortedCopies, distorted, texture


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.rand(8, 1, 224, 224, generator=torch.Generator().manual_seed(1))


def wordings() -> Wordings:
    count = 6
    tokens = {
        "input_ids": torch.arange(5, 5 + count * 4).reshape(count, 4),
        "attention_mask": torch.ones(count, 4, dtype=torch.int64),
        "token_type_ids": torch.zeros(count, 4, dtype=torch.int64),
        "word_index": torch.arange(4).expand(count, -1),
    }
    meaning = torch.arange(count) // 2
    return Wordings(tokens=tokens, truth=torch.eye(3)[meaning], meaning=meaning)


def test_distorted_pictures_stay_pictures_and_depend_on_the_seed(pictures: torch.Tensor) -> None:
    first = distorted(pictures, torch.Generator().manual_seed(3))
    again = distorted(pictures, torch.Generator().manual_seed(3))
    other = distorted(pictures, torch.Generator().manual_seed(4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == pictures.shape
    assert first.min() >= 0
    assert first.max() <= 1


def test_texture_tells_a_flat_patch_from_a_rough_one(pictures: torch.Tensor) -> None:
    half_flat = pictures.clone()
    half_flat[..., :112] = 0.5
    described = texture(half_flat, 16).reshape(8, 14, 14, -1)
    assert described.isfinite().all()
    finest_detail = described[..., 5]
    assert (finest_detail[:, :, :6].amax(dim=(1, 2)) < finest_detail[:, :, 8:].amin(dim=(1, 2))).all()


def test_a_drawn_copy_is_of_the_wanted_original() -> None:
    originals = torch.linspace(0.1, 0.9, 5)[:, None, None, None] * torch.ones(5, 1, 224, 224)
    originals = originals + 0.01 * torch.rand(originals.shape, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    copies = DistortedCopies(originals, generator, patch=16, copies=3, components=4)
    drawn, numbers = copies.draw(torch.tensor([0, 4, 0]), generator)
    assert (numbers % 5).tolist() == [0, 4, 0]
    assert drawn[1].amax() > drawn[0].amax()
    assert copies.texture.shape[:2] == (15, 196)
    assert copies.layout.shape == (15, 4)


def test_every_meaning_is_drawn_equally_often() -> None:
    drawn = wordings().draw(3, torch.Generator().manual_seed(0))
    assert wordings().meaning[drawn].bincount().tolist() == [3, 3, 3]


@pytest.mark.slow
def test_the_same_seed_trains_the_same_model(pictures: torch.Tensor) -> None:
    sizes = dataclasses.replace(reference_sizes(vocab_size=40), vit_depth=1, fusion_layers=2)
    schedule = Schedule(image_steps=2, text_steps=2, epochs=1)
    labels = torch.arange(8) % 3

    def trained(seed: int) -> torch.Tensor:
        model, curve = fit(
            sizes, pictures, labels, wordings(), seed=seed, schedule=schedule, device=torch.device("cpu")
        )
        assert not model.training
        assert len(curve.pairs) == 1
        with torch.no_grad():
            return model(normalised(pictures[:2]), **wordings().tokens).scores

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))
