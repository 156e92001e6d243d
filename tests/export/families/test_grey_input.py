"""One plane for three: an image side gives what the published one gives of the same picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from promptray.export.families.base import LoadedModel, Reference, Side, tensor
from promptray.export.families.classifier import describe_classifier
from promptray.export.families.grey_input import read_one_plane
from promptray.runtime.bundle.image_rules import CentreCrop, Greyscale, Normalise, Preprocessing
from promptray.runtime.preprocess import normalise
from promptray.runtime.text import EncodedFinding

SIDE = 12
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
MEANS = st.integers(0, 1000).map(lambda share: share / 1000)
DEVIATIONS = st.integers(50, 2000).map(lambda share: share / 1000)
PICTURES = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE), np.uint8)
PICTURES[0, :6], PICTURES[0, 6:] = 0, 255


class Tower(nn.Module):
    """A first convolution, and what comes behind it."""

    def __init__(self, first: nn.Conv2d) -> None:
        super().__init__()
        self.first, self.second = first, nn.Conv2d(5, 4, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        return (self.second(self.first(pixels)).mean(dim=(2, 3)),)


def published(mean: Sequence[float], std: Sequence[float], **convolution: Any) -> LoadedModel:
    """Return a model whose first convolution reads three planes; its reference returns those planes."""
    rule = Preprocessing(
        greyscale=Greyscale(), steps=[CentreCrop(size=SIDE)],
        normalise=Normalise(mean=list(mean), std=list(std)), channels=3, height=SIDE, width=SIDE,
    )  # fmt: skip

    def reference(
        pixels: Tensor, findings: Sequence[EncodedFinding], done: Callable[[int], None] = lambda _: None
    ) -> Reference:
        done(len(pixels))
        return Reference(logits=pixels.numpy(), maps=None)

    seed = convolution.pop("seed", 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower = Tower(nn.Conv2d(3, 5, **convolution)).eval().requires_grad_(False)
    return describe_classifier(
        "small",
        Side(tower, [tensor("pixels", "batch", 3, SIDE, SIDE)], [tensor("image_vector", "batch", 4)]),
        torch.eye(4), torch.zeros(4), list("abcd"), preprocessing=rule, map_facts=None,
        relations=("independent",), reference=reference, score_tolerance=1e-4, notes=(),
    )  # fmt: skip


def first(model: LoadedModel) -> nn.Conv2d:
    found = model.image.module.get_submodule("first")
    assert isinstance(found, nn.Conv2d)
    return found


def require_same(model: LoadedModel) -> LoadedModel:
    """Hold the convolution of one plane to the published one, which computes in doubles here."""
    conv, rule = first(model), model.preprocessing.normalise
    weight = conv.weight.double()
    bias = torch.zeros(len(weight)).double() if conv.bias is None else conv.bias.double()
    mean, std = (torch.tensor(each).double()[:, None, None] for each in (rule.mean, rule.std))
    share = torch.from_numpy(PICTURES)[:, None].double() / 255
    where: Any = (conv.stride, conv.padding)
    expected = F.conv2d((share - mean) / std, weight, bias, *where)
    largest = F.conv2d((share + mean.max()) / std, weight.abs(), bias.abs(), *where)
    own = read_one_plane(model, "first")
    found = first(own)(torch.from_numpy(normalise(PICTURES, own.preprocessing)))
    # Three roundings make a pixel, three the weights and the bias; each product is rounded, each sum.
    roundings = first(own).weight[0].numel() + 8
    assert ((found - expected).abs() <= roundings * 2**-24 * largest).all()
    return own


@given(
    mean=st.lists(MEANS, min_size=3, max_size=3),
    std=st.lists(DEVIATIONS, min_size=3, max_size=3),
    size=st.sampled_from([1, 3, 4]),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_convolution_without_padding_gives_the_same(
    mean: list[float], std: list[float], size: int, bias: bool, seed: int
) -> None:
    own = require_same(published(mean, std, kernel_size=size, stride=size, bias=bias, seed=seed))
    assert list(own.image.inputs) == [tensor("pixels", "batch", 1, SIDE, SIDE)]
    rule = own.preprocessing
    assert (rule.channels, len(rule.normalise.mean), len(rule.normalise.std)) == (1, 1, 1)
    assert min(mean) <= rule.normalise.mean[0] <= max(mean)


@given(mean=MEANS, std=st.lists(DEVIATIONS, min_size=3, max_size=3), seed=st.integers(0, 1000))
def test_padding_is_one_grey_where_means_are_one(mean: float, std: list[float], seed: int) -> None:
    for padding in (1, "same"):
        own = require_same(published([mean] * 3, std, kernel_size=3, padding=padding, seed=seed))
        assert own.preprocessing.channels == 1


@pytest.mark.parametrize("padding", [1, "same"])
def test_a_convolution_that_pads_with_three_greys_is_left_as_published(padding: int | str) -> None:
    model = published(*IMAGENET, kernel_size=3, padding=padding)
    assert read_one_plane(model, "first") is model
    assert model.preprocessing.channels == first(model).in_channels == 3


def test_what_says_that_it_does_not_pad_is_folded() -> None:
    require_same(published(*IMAGENET, kernel_size=3, padding="valid"))


@given(mean=st.floats(0, 1), std=st.floats(0.0625, 2))
def test_equal_planes_keep_the_bits_of_one_and_need_no_bias(mean: float, std: float) -> None:
    model = published([mean] * 3, [std] * 3, kernel_size=4, bias=False)
    own = read_one_plane(model, "first")
    pixels = normalise(PICTURES, own.preprocessing)
    assert (pixels == normalise(PICTURES, model.preprocessing)).all()
    assert first(own).bias is None


@pytest.mark.parametrize("rule", [IMAGENET, ([0.4978] * 3, [0.2449] * 3)])
def test_the_reference_gets_its_three_planes(rule: tuple[list[float], list[float]]) -> None:
    model = published(*rule, kernel_size=4)
    own, done = read_one_plane(model, "first"), list[int]()
    pixels = torch.from_numpy(normalise(PICTURES, own.preprocessing))
    found = own.heads[0].reference(pixels, [], done.append).logits
    expected = normalise(PICTURES, model.preprocessing)
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-7)
    assert done == [len(PICTURES)]
    assert (own.heads[0].reference(pixels, []).logits == found).all()


def test_the_published_model_is_not_changed_and_shares_its_other_weights() -> None:
    model = published(*IMAGENET, kernel_size=4)
    before = {name: value.clone() for name, value in model.image.module.state_dict().items()}
    own = read_one_plane(model, "first")
    assert first(model).in_channels == 3
    after = model.image.module.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    ours = dict(own.image.module.named_parameters())
    theirs = dict(model.image.module.named_parameters())
    shared = {name for name in ours if ours[name] is theirs[name]}
    assert shared == {"second.weight", "second.bias"}
    assert not any(each.requires_grad for each in ours.values())
