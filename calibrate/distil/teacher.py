"""The teacher in parts: its tower, what is made of the tower's features, and its heads with their banks."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from promptray.calibrate.distil.torch_side import torch_bank
from promptray.export.families.base import Divided, LoadedModel, Side, weights_sha256
from promptray.runtime.errors import BuildError
from promptray.runtime.prompts import BankBatch, PromptBank
from promptray.runtime.text import EncodedFinding

#: By head: key -> finding, in score order.
Findings = Mapping[str, Mapping[str, EncodedFinding]]


class TeacherHead(nn.Module):
    """A head with its bank resident: outputs of the image side -> logits (B, K). Nothing of it is trained.

    Parameters
    ----------
    side : Side
        Of the head.
    bank : PromptBank
    """

    def __init__(self, side: Side, bank: PromptBank) -> None:
        super().__init__()
        self.module = copy.deepcopy(side.module).requires_grad_(False)
        self.inputs = [each.name for each in side.inputs]
        batches = bank.batches()
        self.tensors = [_tensors(batch) for batch in batches]
        self.order = torch.from_numpy(np.argsort(np.concatenate([batch.positions for batch in batches])))

    def forward(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """Score the outputs of the image side, by name."""
        image = next(iter(outputs.values()))
        parts = [
            self.score(outputs, {name: each.to(image.device) for name, each in tensors.items()})
            for tensors in self.tensors
        ]
        return torch.cat(parts, dim=1)[:, self.order.to(image.device)]

    def score(self, outputs: Mapping[str, Tensor], bank: Mapping[str, Tensor]) -> Tensor:
        """Score them against other entries of a bank (N, ...), all of one bucket: logits (B, N)."""
        given = {**outputs, **bank}
        logits: Tensor = self.module(*(given[name] for name in self.inputs))[0]
        return logits


def _tensors(batch: BankBatch) -> dict[str, Tensor]:
    return {name: torch.from_numpy(values) for name, values in batch.tensors.items()}


@dataclass(frozen=True, eq=False)
class Teacher:
    """What a student learns from.

    Attributes
    ----------
    tower : Divided or module
        The image side's module.
    names : sequence of str
        Outputs of the image side.
    heads : dict of str to TeacherHead
    shapes : list of tuple of int
        What the tower gives of one image.
    grid : (int, int)
        Rows and columns of its positions.
    sha256 : str
        Of all weights and banks: what is learned from another teacher cannot stand in for this one.
    """

    tower: Any
    names: Sequence[str]
    heads: Mapping[str, TeacherHead]
    shapes: list[tuple[int, ...]]
    grid: tuple[int, int]
    sha256: str

    def encode(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return what the tower gives of pixels."""
        return encode(self.tower, pixels)

    def outputs(self, encoded: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the image side's outputs by name, of what a tower gives."""
        return dict(zip(self.names, finish(self.tower, encoded), strict=True))


def teacher_of(model: LoadedModel, findings: Findings) -> Teacher:
    """Take a model apart.

    Parameters
    ----------
    model : LoadedModel
        Not changed.
    findings : mapping of str to (mapping of str to EncodedFinding)
        By head and key: those whose logits are learned. A head that is not named is not looked at.
    """
    heads = {
        name: TeacherHead(model.head(name).side, torch_bank(model, model.head(name), list(chosen.values())))
        for name, chosen in findings.items()
        if chosen
    }
    shapes, grid = tower_shapes(model)
    digest = hashlib.sha256(model_sha256(model).encode())
    for name, head in sorted(heads.items()):
        banks = {f"{n}.{key}": each for n, batch in enumerate(head.tensors) for key, each in batch.items()}
        digest.update(f"{name}:{weights_sha256(banks)};".encode())
    tower = copy.deepcopy(model.image.module).eval().requires_grad_(False)
    names = [each.name for each in model.image.outputs]
    return Teacher(tower, names, heads, shapes, grid, digest.hexdigest())


def model_sha256(model: LoadedModel) -> str:
    """Return a hash of all of a model that a student's features must fit: image side and heads."""
    digest = hashlib.sha256(weights_sha256(model.image.module.state_dict()).encode())
    for head in model.heads:
        digest.update(f"{head.name}:{weights_sha256(head.side.module.state_dict())};".encode())
    return digest.hexdigest()


def tower_shapes(model: LoadedModel) -> tuple[list[tuple[int, ...]], tuple[int, int]]:
    """Return the shapes of what a model's tower gives of one image, and the grid of its positions.

    Raises
    ------
    BuildError
        ``distil.student`` where positions have no grid that is known.
    """
    facts = model.preprocessing
    with torch.inference_mode():
        found = encode(model.image.module, torch.zeros(1, facts.channels, facts.height, facts.width))
    shapes = [tuple(each.shape[1:]) for each in found]
    grids = {tuple(head.map.grid) for head in model.heads if head.map is not None}
    if len(grids) == 1:
        rows, columns = grids.pop()
        return shapes, (rows, columns)
    counts = {shape[0] for shape in shapes if len(shape) == 2}
    side = math.isqrt(max(counts, default=1))
    if len(counts) > 1 or side * side != max(counts, default=1):
        raise BuildError(
            "distil.student",
            "the grid of the tower's positions is not known",
            artefact=f"family {model.family}",
            expected="one head's map with its grid, or a square number of positions",
            found=f"{sorted(counts)} positions",
            cure="let the family state the grid of its maps (docs/families.md)",
        )
    return shapes, (side, side)


def encode(tower: Any, pixels: Tensor) -> tuple[Tensor, ...]:
    """Return what a tower gives of pixels; a module that is not divided is all tower."""
    found: tuple[Tensor, ...] = tower.encode(pixels) if isinstance(tower, Divided) else tower(pixels)
    return found


def finish(tower: Any, encoded: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the outputs of an image side, of what its tower gives."""
    found: tuple[Tensor, ...] = tower.finish(*encoded) if isinstance(tower, Divided) else tuple(encoded)
    return found
