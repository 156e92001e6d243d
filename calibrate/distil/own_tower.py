"""The teacher's own tower with some of its blocks: a student that begins with the teacher's weights.

Sanh et al., "DistilBERT", 2019, arXiv 1910.01108, keep every other block; Sun et al., "Patient knowledge
distillation", EMNLP 2019, arXiv 1908.09355, compare which. What the blocks give to is kept: embedding,
positions, final norm. So nothing is projected, and the student speaks the head's language from the start.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from promptray.calibrate.distil.teacher import encode
from promptray.export.families.base import LoadedModel
from promptray.runtime.errors import BuildError

_HELD = (
    "a tower that is a row of like blocks, or several: the ViTs of carzero, asg, open_clip and chexzero, "
    "stages of convnext and of ResNets"
)


@dataclass(frozen=True)
class Stack:
    """Blocks that follow each other and are alike, so that any of them may be left out.

    Attributes
    ----------
    name : str
        Of the ``nn.Sequential`` that they are in.
    blocks : range
        Their numbers in it.
    """

    name: str
    blocks: range


class OwnTower(nn.Module):
    """pixels (B, C, H, W) -> what the teacher's tower gives of them, through fewer of its blocks.

    Parameters
    ----------
    model : LoadedModel
        The teacher. Not changed; its weights are copied.
    layers : int or 'all'
        Blocks to keep, fewer than it has, evenly spaced, the first and the last among them. Where a tower
        has several stacks of blocks, each keeps its share, one at least.

    Attributes
    ----------
    notes : list of str
        Which are kept.

    Raises
    ------
    BuildError
        ``distil.student`` for a tower without blocks that are alike, or a number that it cannot have.
    """

    def __init__(self, model: LoadedModel, layers: int | Literal["all"]) -> None:
        super().__init__()
        facts = model.preprocessing
        example = torch.zeros(1, facts.channels, facts.height, facts.width)
        self.tower: Any = copy.deepcopy(model.image.module).requires_grad_(True)
        self.notes: list[str] = []
        found = stacks(self.tower, example)
        if layers != "all":
            for stack, count in zip(found, _shares(found, layers, model.family), strict=True):
                kept = evenly_spaced(len(stack.blocks), count)
                container: Any = self.tower.get_submodule(stack.name)
                for number in reversed(range(len(stack.blocks))):
                    if number not in kept:
                        del container[stack.blocks[number]]
                said = ", ".join(str(number + 1) for number in kept)
                self.notes.append(f"of the {len(stack.blocks)} blocks of {stack.name} it has {said}")
        _keep_only_used(self.tower, example)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return it, in the teacher's order."""
        return encode(self.tower, pixels)

    def start_at(self, means: Sequence[Tensor]) -> None:
        """Begin as it is: the teacher's weights know the teacher's mean."""


def evenly_spaced(count: int, kept: int) -> list[int]:
    """Return which of `count` blocks are kept: of 12, DistilBERT's 0, 2, 4, 7, 9, 11 for 6."""
    return [round(each) for each in np.linspace(0, count - 1, kept).tolist()]


def stacks(tower: nn.Module, example: Tensor) -> list[Stack]:
    """Return the stacks of a tower, found by running it: whatever a family calls them.

    A stack is two or more neighbours in an ``nn.Sequential`` with the same class and shapes of weights that
    each run once and give a tensor of the shape that they take.
    """
    ran: dict[int, list[bool]] = {}

    def note(module: nn.Module, given: tuple[Any, ...], gave: Any) -> None:
        same = bool(given) and isinstance(gave, Tensor) and gave.shape == given[0].shape
        ran.setdefault(id(module), []).append(same)

    modules = [(name, module) for name, module in tower.named_modules() if isinstance(module, nn.Sequential)]
    hooks = [child.register_forward_hook(note) for _, module in modules for child in module]
    try:
        with torch.inference_mode():
            encode(tower, example)
    finally:
        for hook in hooks:
            hook.remove()
    found: list[Stack] = []
    for name, module in modules:
        if any(name.startswith(f"{stack.name}.") for stack in found):  # inside a block
            continue
        kinds = [_kind(child) if ran.get(id(child)) == [True] else None for child in module]
        start = 0
        for end in range(1, len(kinds) + 1):
            if end == len(kinds) or kinds[end] != kinds[start]:
                if kinds[start] is not None and end - start > 1:
                    found.append(Stack(name, range(start, end)))
                start = end
    return found


def _kind(block: nn.Module) -> object:
    shapes = {name: tuple(each.shape) for name, each in block.state_dict().items()}
    return (type(block), shapes) if shapes else None


def _shares(found: Sequence[Stack], layers: int, family: str) -> list[int]:
    """Divide the blocks to keep among stacks as their lengths are."""
    lengths = [len(stack.blocks) for stack in found]
    if not found:
        raise _refused("this tower is no row of blocks that are alike", layers, f"a tower of {family}")
    said = "; ".join(f"{length} in {stack.name}" for stack, length in zip(found, lengths, strict=True))
    if layers >= sum(lengths):  # no smaller, yet it would be held to the wider limits of a student
        cure = "keep fewer blocks, or write `layers: all` for the whole tower"
        raise _refused("the tower has no blocks to leave out then", layers, said, cure)
    if layers < len(found):
        raise _refused("every stack of blocks keeps one at least", layers, said)
    kept = [1] * len(found)
    for _ in range(layers - len(found)):
        wanted = [length * layers / sum(lengths) - have for length, have in zip(lengths, kept, strict=True)]
        kept[int(np.argmax(wanted))] += 1
    return kept


def _keep_only_used(tower: nn.Module, example: Tensor) -> None:
    """Remove the modules whose weights the tower's output does not depend on: heads are the teacher's."""
    parameters = list(tower.parameters())
    total = torch.stack([each.sum() for each in encode(tower, example)]).sum()
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    used = {id(each) for each, gradient in zip(parameters, gradients, strict=True) if gradient is not None}
    _remove_unused(tower, used)


def _remove_unused(module: nn.Module, used: set[int]) -> None:
    for name, child in list(module.named_children()):
        own = {id(each) for each in child.parameters()}
        if own and not own & used:
            delattr(module, name)
        else:
            _remove_unused(child, used)


def _refused(
    what: str,
    layers: int,
    found: str,
    cure: str = "keep another number of blocks, `layers: all`, or name a timm architecture as the student",
) -> BuildError:
    return BuildError(
        "distil.student",
        what,
        artefact=f"distil.layers: {layers}",
        expected=_HELD,
        found=found,
        cure=cure,
    )
