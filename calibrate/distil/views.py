"""Seeded views of a picture: the same view goes to teacher and student, so the teacher's answer is stored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from promptray.calibrate.distil.settings import Augmentation
from promptray.runtime.bundle.image_rules import Preprocessing
from promptray.runtime.preprocess import normalise

Levels = NDArray[Any]


def view(picture: Levels, rule: Augmentation, number: int, seed: Sequence[int]) -> Levels:
    """Return one view of a picture: turned, shifted, scaled, with other contrast and brightness.

    Parameters
    ----------
    picture : uint8 or float32 (height, width[, 3])
        Levels 0..255, as the network sees them.
    rule : Augmentation
    number : int
        View 0 is the picture itself.
    seed : sequence of int
        Of the run and the picture; with `number` it decides the view, on every machine.

    Returns
    -------
    array
        The picture itself, or float32 of its shape with levels in 0..255; black where nothing was.
    """
    if number == 0:
        return picture
    rng = np.random.default_rng([*seed, number])
    turn, across, down, zoom, contrast, brightness = rng.uniform(-1, 1, 6)
    angle = math.radians(turn * rule.rotate)
    size = 1 + zoom * rule.scale
    rows, columns = picture.shape[:2]
    cos, sin = math.cos(angle) / size, math.sin(angle) / size
    matrix = [
        [cos, -sin * rows / columns, 2 * across * rule.shift],
        [sin * columns / rows, cos, 2 * down * rule.shift],
    ]
    levels = torch.from_numpy(np.asarray(picture, np.float32).reshape(1, rows, columns, -1))
    places = F.affine_grid(
        torch.tensor([matrix], dtype=torch.float32), [1, 1, rows, columns], align_corners=False
    )
    moved = F.grid_sample(levels.permute(0, 3, 1, 2), places, align_corners=False)
    found = moved.permute(0, 2, 3, 1).reshape(picture.shape).numpy()
    middle = found.mean()
    lit = (found - middle) * (1 + contrast * rule.contrast) + middle + 255 * brightness * rule.brightness
    clipped: Levels = np.clip(lit, 0, 255).astype(np.float32)
    return clipped


def mixed(first: Levels, second: Levels, share: float) -> Levels:
    """Return ``share`` of one view and the rest of another, float32: no film, but the teacher answers it.

    Zhang et al., "mixup", ICLR 2018, arXiv 1710.09412, without its labels; Beyer et al., "Knowledge
    distillation: a good teacher is patient and consistent", CVPR 2022, arXiv 2106.05237, with any share.
    """
    found: Levels = np.float32(share) * first + np.float32(1 - share) * second
    return found


def pixels(pictures: Sequence[Levels], rule: Preprocessing) -> torch.Tensor:
    """Return the network's input for views, float32 (B, channels, height, width)."""
    return torch.from_numpy(np.concatenate([normalise(each[None], rule) for each in pictures]))
