"""A timm tower with the projections that bring its features to what the teacher's tower gives."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from promptray.export.torchvision_guard import ensure_torchvision_imports
from promptray.runtime.bundle.image_rules import Preprocessing
from promptray.runtime.errors import BuildError

ensure_torchvision_imports()

import timm  # noqa: E402 - timm imports torchvision

_SHOWN = (
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
    "convnext_atto",
    "mobilenetv3_small_100",
    "resnet18",
)

#: Of a projection's first weights, so that a student's first features lie about the mean.
_SMALL = 0.1


class Feature(nn.Module):
    """One tensor of the teacher's tower, made of the student's feature map.

    Each position has a constant of its own: a teacher's features depend on the place, and a convolution does
    not know where it is.

    Parameters
    ----------
    width, pooled : int
        Of the student's features, and of their pooled vector.
    shape : sequence of int
        Of the teacher's tensor for one image: (W,), or ([1 +] P, W).
    grid : (int, int)
        Rows and columns of the P positions.
    """

    def __init__(self, width: int, pooled: int, shape: Sequence[int], grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        count = shape[0] if len(shape) == 2 else 0
        positions = grid[0] * grid[1]
        if len(shape) not in (1, 2) or count not in (0, positions, positions + 1):
            raise ValueError(
                f"a tensor {tuple(shape)} is neither of the image nor of {grid[0]} x {grid[1]} positions"
            )
        self.of_image = _projection(pooled, shape[-1]) if count != positions else None
        self.of_positions = _projection(width, shape[-1]) if count else None
        self.bias = nn.Parameter(torch.zeros(*shape))

    def forward(self, features: Tensor, pooled: Tensor | None) -> Tensor:
        """Make it of features (B, width, rows, columns) and their pooled vector (B, pooled)."""
        parts = []
        if self.of_image is not None:
            parts.append(self.of_image(pooled)[:, None])
        if self.of_positions is not None:
            places = self.of_positions(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            if tuple(features.shape[2:]) != self.grid:
                places = F.interpolate(places, size=self.grid, mode="bilinear", align_corners=False)
            parts.append(places.flatten(2).transpose(1, 2))
        found = torch.cat(parts, dim=1)
        return self.bias + (found[:, 0] if self.of_positions is None else found)

    @torch.no_grad()
    def start_at(self, mean: Tensor) -> None:
        """Begin near the teacher's mean ([P,] W): what is to be learned is the difference of images."""
        self.bias.copy_(mean)


def _projection(width: int, out: int) -> nn.Sequential:
    linear = nn.Linear(width, out, bias=False)
    with torch.no_grad():
        linear.weight.mul_(_SMALL)
    return nn.Sequential(nn.LayerNorm(width), linear)


class Student(nn.Module):
    """pixels (B, C, H, W) -> what the teacher's tower gives of them.

    A feature map of another grid than the head's is projected, then resampled to it bilinearly.

    Parameters
    ----------
    name : str
        A timm architecture, which is made without weights.
    preprocessing : Preprocessing
        The teacher's: the student takes the same pixels.
    shapes : sequence of (sequence of int)
        Of the teacher's tensors, for one image.
    grid : (int, int)
        Rows and columns of the head's positions.

    Raises
    ------
    BuildError
        ``distil.student``.
    """

    def __init__(
        self,
        name: str,
        preprocessing: Preprocessing,
        shapes: Sequence[Sequence[int]],
        grid: tuple[int, int],
    ) -> None:
        super().__init__()
        size = preprocessing.height, preprocessing.width
        self.tower: Any = _tower(name, preprocessing.channels, size)
        example = torch.zeros(2, preprocessing.channels, *size)
        self.pools = any(len(shape) == 1 or shape[0] != grid[0] * grid[1] for shape in shapes)
        try:
            with torch.no_grad():
                features, pooled = self._features(example)
        except Exception as error:  # whatever some of a thousand architectures raises for a size it lacks
            raise _refused(
                f"this tower does not take the model's pixels, {size[0]} x {size[1]}", name, str(error)[:200]
            ) from error
        width, self.student_grid = features.shape[1], tuple(features.shape[2:])
        try:
            self.features = nn.ModuleList(
                Feature(width, width if pooled is None else pooled.shape[1], shape, grid) for shape in shapes
            )
        except ValueError as error:
            raise _refused(
                "a student cannot take the place of this model's tower", name, str(error)
            ) from None

    @property
    def notes(self) -> list[str]:
        """How its positions become the head's."""
        made = (each for each in self.features if isinstance(each, Feature))
        grids = {each.grid for each in made if each.of_positions is not None}
        rows, columns = self.student_grid
        return [
            f"its {rows} x {columns} positions are resampled bilinearly to the head's {grid[0]} x {grid[1]}"
            for grid in grids - {self.student_grid}
        ]

    def start_at(self, means: Sequence[Tensor]) -> None:
        """Begin near the teacher's means (see :meth:`Feature.start_at`)."""
        for each, mean in zip(self.features, means, strict=True):
            if isinstance(each, Feature):
                each.start_at(mean)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return them, in the teacher's order."""
        features, pooled = self._features(pixels)
        return tuple(each(features, pooled) for each in self.features)

    def _features(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the last feature map (B, width, rows, columns), and the tower's own pooling of it."""
        found: Tensor = self.tower.forward_features(pixels)
        pooled: Tensor | None = self.tower.forward_head(found, pre_logits=True) if self.pools else None
        if pooled is not None and pooled.ndim != 2:
            raise ValueError(f"it pools to {pooled.ndim} dimensions")
        if found.ndim == 3:
            places = found[:, getattr(self.tower, "num_prefix_tokens", 0) :]
            rows, columns = self._token_grid(places.shape[1])
            return places.transpose(1, 2).unflatten(2, (rows, columns)), pooled
        if found.ndim != 4:
            raise ValueError(f"its features have {found.ndim} dimensions")
        last = getattr(self.tower, "output_fmt", "NCHW") == "NHWC"
        return found.permute(0, 3, 1, 2) if last else found, pooled

    def _token_grid(self, count: int) -> tuple[int, int]:
        embed = getattr(self.tower, "patch_embed", None)
        grid = getattr(embed, "grid_size", None) or (math.isqrt(count), math.isqrt(count))
        if grid[0] * grid[1] != count:
            raise ValueError(f"its {count} positions are no grid")
        return int(grid[0]), int(grid[1])


def _tower(name: str, channels: int, size: tuple[int, int]) -> nn.Module:
    """Make an architecture for a size of pixels; those that take any size are not told it."""
    if not timm.is_model(name):  # refuses names of a hub and of folders, too: nothing is fetched
        near = difflib.get_close_matches(name, timm.list_models(), 5, 0.6)
        raise _refused("timm has no such architecture", name, f"near it: {', '.join(near)}" if near else "")
    made: nn.Module
    try:
        made = timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels, img_size=size)
    except TypeError:
        try:
            made = timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels)
        except Exception as error:
            raise _refused("timm cannot make this tower", name, str(error)[:200]) from error
    except Exception as error:
        raise _refused(
            f"this tower is not made for {size[0]} x {size[1]} pixels", name, str(error)[:200]
        ) from error
    return made


def _refused(what: str, name: str, why: str) -> BuildError:
    return BuildError(
        "distil.student",
        what,
        artefact=f"distil.student: {name}",
        expected=f"a name that timm lists, for example {', '.join(_SHOWN)}",
        found=why or None,
        cure="choose another student; a model can be distilled if its tower gives vectors (batch, width), or "
        "positions (batch, [1 +] rows x columns, width) on the grid of its maps",
    )
