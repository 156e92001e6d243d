"""An image side that reads a grey picture once, where the published one reads three planes of it.

A radiograph has one plane. The published preparation copies it and normalises each copy, so of the picture's
values v in 0..1 the first convolution sees ``x_c = (v - m_c) / s_c``. With one plane ``x = (v - m) / s``::

    x_c            =  x * s / s_c  +  (m - m_c) / s_c
    sum_c W_c x_c  =  (sum_c W_c * s / s_c) x  +  sum_c W_c * (m - m_c) / s_c

The first sum is a kernel of one plane, the second a constant for the bias. In real numbers both sides are the
same, wherever the kernel lies on the picture. Where it lies on padding, x_c = 0 is the grey m_c: one plane
can say it only if all m_c are one, and then there is no constant.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from statistics import mean

import msgspec
import torch
from torch import Tensor, nn

from promptray.export.families.base import LoadedModel, Reference, Scoring, Side, tensor
from promptray.runtime.bundle.image_rules import Normalise
from promptray.runtime.text import EncodedFinding


def read_one_plane(model: LoadedModel, convolution: str) -> LoadedModel:
    """Return a model that takes one plane of a picture where the published one takes three of its grey.

    References stay the published arithmetic: they make its three planes of the one.

    Parameters
    ----------
    model : LoadedModel
        As published, with three planes of one grey picture. Not changed; all weights but those of the
        convolution are shared with it.
    convolution : str
        Name, in the image side's module, of the ``nn.Conv2d`` that reads the pixels.

    Returns
    -------
    LoadedModel
        `model` itself where the convolution pads and means differ.
    """
    published = model.preprocessing
    # The mean of equal numbers is that number, so pixels keep their bits; of unequal ones it lies among them,
    # so that the one plane is about normal as the three were, and the constant small.
    one = Normalise(mean=[mean(published.normalise.mean)], std=[mean(published.normalise.std)])
    own = msgspec.structs.replace(published, channels=1, normalise=one)
    weights = (*model.image.module.parameters(), *model.image.module.buffers())
    module = copy.deepcopy(model.image.module, {id(each): each for each in weights})
    first = module.get_submodule(convolution)
    assert isinstance(first, nn.Conv2d)  # noqa: S101 - the family names its own
    scale, shift = _planes_of_one(published.normalise, one)
    if shift.any() and first.padding not in ((0, 0), "valid"):
        return model
    _fold(first, scale, shift)
    pixels = tensor("pixels", "batch", 1, own.height, own.width)
    references = [partial(_of_three_planes, head.reference, scale, shift) for head in model.heads]
    heads = [replace(head, reference=each) for head, each in zip(model.heads, references, strict=True)]
    return replace(model, preprocessing=own, image=Side(module, [pixels], model.image.outputs), heads=heads)


def _planes_of_one(published: Normalise, one: Normalise) -> tuple[Tensor, Tensor]:
    """Return what makes the planes of the one, ``x * scale + shift``: doubles, (3, 1, 1) each."""
    # The runtime computes with these numbers as float32.
    means, stds, centre, spread = (
        torch.tensor(each, dtype=torch.float32).double()[:, None, None]
        for each in (published.mean, published.std, one.mean, one.std)
    )
    return spread / stds, (centre - means) / stds


def _fold(first: nn.Conv2d, scale: Tensor, shift: Tensor) -> None:
    kernels, trained = first.weight.detach().double(), first.weight.requires_grad
    if shift.any():
        constant = (kernels * shift).sum(dim=(1, 2, 3))
        bias = constant if first.bias is None else first.bias.detach().double() + constant
        first.bias = nn.Parameter(bias.float(), trained)
    first.weight = nn.Parameter((kernels * scale).sum(dim=1, keepdim=True).float(), trained)
    first.in_channels = 1


def _of_three_planes(
    reference: Scoring,
    scale: Tensor,
    shift: Tensor,
    pixels: Tensor,
    findings: Sequence[EncodedFinding],
    done: Callable[[int], None] = lambda _: None,
) -> Reference:
    """Score one plane (B, 1, H, W) by what scores three."""
    return reference((pixels.double() * scale + shift).float(), findings, done)
