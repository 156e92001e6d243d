"""Pictures for training: distorted copies, and what their patches look like."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_EPSILON = 1e-5


def distorted(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Turn, shift, stretch, mirror and re-expose pictures (B, 1, H, W) of values 0..1.

    Rows and columns are stretched apart: this collection's sick children were often framed wider than its
    healthy ones, and the model should not read the frame.
    """
    count = len(pictures)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    angle, mirror = uniform(-0.2, 0.2), torch.sign(uniform(-1, 1))
    wide = uniform(0.85, 1.15)
    tall = wide * uniform(0.85, 1.15)
    rows = [
        torch.stack([mirror * wide * angle.cos(), -wide * angle.sin(), uniform(-0.12, 0.12)], dim=1),
        torch.stack([mirror * tall * angle.sin(), tall * angle.cos(), uniform(-0.12, 0.12)], dim=1),
    ]
    size = list(pictures.shape)
    grid = F.affine_grid(torch.stack(rows, dim=1), size, align_corners=False)
    moved = F.grid_sample(pictures, grid, align_corners=False).clamp(1e-4, 1)
    exposed = moved ** uniform(0.7, 1.4)[:, None, None, None]
    mean = exposed.mean(dim=(1, 2, 3), keepdim=True)
    contrast, brightness = uniform(0.75, 1.25), uniform(-0.1, 0.1)
    return ((exposed - mean) * contrast[:, None, None, None] + mean + brightness[:, None, None, None]).clamp(
        0, 1
    )


def texture(pictures: Tensor, patch: int) -> Tensor:
    """Describe every patch of pictures (B, 1, H, W) by its brightness and its contrast at four scales.

    Returns
    -------
    Tensor, (B, patches, features)
        Mean, slopes, and log energies of differences between neighbours and between scales.
    """

    def pooled(values: Tensor, size: int) -> Tensor:
        return F.avg_pool2d(values, size).flatten(2).transpose(1, 2)

    current = (pictures - pictures.mean((1, 2, 3), keepdim=True)) / pictures.std((1, 2, 3), keepdim=True)
    features = [pooled(current, patch)]
    for scale in range(4):
        size = patch >> scale
        if size >= 4:
            down = F.pad(current[:, :, 1:] - current[:, :, :-1], (0, 0, 0, 1))
            right = F.pad(current[..., 1:] - current[..., :-1], (0, 1))
            features += [torch.log(pooled(step.square(), size) + _EPSILON) for step in (right, down)]
            if size == 4:
                features += [pooled(right, size), pooled(down, size)]
        coarse = F.avg_pool2d(current, 2)
        detail = current - F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        features.append(torch.log(pooled(detail.square(), size) + _EPSILON))
        current = coarse
    return torch.cat(features, dim=-1)


class DistortedCopies:
    """Copies made once and drawn from many times: distorting costs more than a training step.

    Attributes
    ----------
    texture : Tensor, (copies, patches, features)
        Of every copy, each feature with mean 0 and deviation 1.
    layout : Tensor, (copies, components)
        Principal components of the picture's texture as a whole, each with deviation 1.
    """

    def __init__(
        self, pictures: Tensor, generator: torch.Generator, *, patch: int, copies: int, components: int
    ) -> None:
        self.originals = len(pictures)
        self.copies = copies
        made = [distorted(pictures, generator) for _ in range(copies)]
        described = torch.cat([texture(each, patch) for each in made])
        mean, deviation = described.mean((0, 1)), described.std((0, 1))
        self.texture = (described - mean) / deviation
        whole = self.texture.flatten(1)
        middle = whole.mean(0)
        undistorted = ((texture(pictures, patch) - mean) / deviation).flatten(1)
        directions = torch.linalg.svd(undistorted - middle, full_matrices=False).Vh[:components]
        layout = (whole - middle) @ directions.T
        self.layout = layout / layout.std(0)
        self._made = (torch.cat(made) * 255).round().to(torch.uint8)

    def draw(self, originals: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw one copy of each wanted original; return pictures (B, 1, H, W) of 0..1 and their numbers."""
        numbers = originals + self.originals * torch.randint(
            self.copies, originals.shape, generator=generator
        )
        return self._made[numbers].float() / 255, numbers
