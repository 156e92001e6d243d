"""The teacher's own text side with fewer of its blocks: a student that begins with the teacher's weights.

Sanh et al., "DistilBERT", 2019, arXiv 1910.01108. Only the kept blocks are trained. Embeddings, norms,
projections and whatever the family makes of the encoder's states stay the teacher's, to the bit: a word that
no wording of the training has begins as the teacher has it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from promptray.calibrate.distil.own_tower import evenly_spaced
from promptray.export.families.base import LoadedModel, LoadedText, Side
from promptray.runtime.errors import BuildError

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class TextStudent:
    """A text side with fewer blocks.

    Attributes
    ----------
    side : Side
        A copy of the teacher's with `blocks` in the place of all.
    blocks : module
        A part of it: what is trained.
    kept : list of int
        Which of the teacher's blocks they are.
    of : int
        How many the teacher has.
    """

    side: Side
    blocks: nn.Module
    kept: list[int]
    of: int


def require_open(model: LoadedModel) -> LoadedText:
    """Return the text side of a model to which prompts are added.

    Raises
    ------
    BuildError
        ``distil.student`` for a model without text, or whose findings are one unit.
    """
    if model.text is None:
        raise _refused(model.family, "it scores no wordings", "a family with a text side")
    if model.head(model.text.rule.head).set == "fixed":
        what = "its findings are one unit that is encoded at build time, so none is added later"
        raise _refused(
            model.family, what, "a family whose prompts can be added: carzero, asg, open_clip, chexzero"
        )
    return model.text


def text_student(model: LoadedModel, layers: int, example: Arrays) -> TextStudent:
    """Make a student of a model's text side.

    Parameters
    ----------
    model : LoadedModel
        The teacher. Not changed.
    layers : int
        Blocks that are kept, evenly spaced, the first and the last among them.
    example : mapping of str to array
        An encoded wording.

    Raises
    ------
    BuildError
        ``distil.student`` for a text side without a stack of equal blocks, or with too few.
    """
    text = require_open(model)
    module = copy.deepcopy(text.side.module).eval().requires_grad_(False)
    side = Side(module, text.side.inputs, text.side.outputs)
    name = _stack_of(side, example, model.family)
    stack: Any = module.get_submodule(name)
    of = len(stack)
    if not layers < of:
        raise _refused(
            model.family, f"its text encoder has {of} blocks", f"distil_text.layers below {of}", str(layers)
        )
    kept = evenly_spaced(of, layers)
    blocks = (
        type(stack)(*(stack[n] for n in kept))
        if isinstance(stack, nn.Sequential)
        else nn.ModuleList(stack[n] for n in kept)
    )
    parent, _, own = name.rpartition(".")
    setattr(module.get_submodule(parent), own, blocks.requires_grad_(True))
    for each in blocks.modules():
        if isinstance(each, nn.Dropout):
            each.p = 0.0  # the teacher's answers were made without
    return TextStudent(side, blocks, kept, of)


def call(side: Side, prompt: Arrays, device: str = "cpu") -> dict[str, Tensor]:
    """Encode one wording with a text side's module: its outputs by name."""
    given = [torch.from_numpy(prompt[each.name]).to(device) for each in side.inputs]
    return dict(zip([each.name for each in side.outputs], side.module(*given), strict=True))


def _stack_of(side: Side, example: Arrays, family: str) -> str:
    """Return the name of the list of equal blocks that a wording goes through one after the other.

    It is found by running the module, whatever a family calls it: every block runs once and gives states of
    the shape that it takes.
    """
    ran: dict[int, list[bool]] = {}

    def note(block: nn.Module, given: tuple[Any, ...], gave: Any) -> None:
        first = gave[0] if isinstance(gave, tuple) else gave
        same = bool(given) and isinstance(first, Tensor) and first.shape == given[0].shape
        ran.setdefault(id(block), []).append(same)

    lists = [
        (name, module)
        for name, module in side.module.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential)
        and len(module) > 1
        and len({_kind(each) for each in module}) == 1
    ]
    hooks = [each.register_forward_hook(note) for _, module in lists for each in module]
    try:
        with torch.inference_mode():
            call(side, example)
    finally:
        for hook in hooks:
            hook.remove()
    found = [name for name, module in lists if all(ran.get(id(each)) == [True] for each in module)]
    if len(found) != 1:
        what = "its text side is no stack of equal blocks"
        raise _refused(
            family, what, "a BERT or a CLIP: carzero, asg, open_clip, chexzero", f"{len(found)} stacks"
        )
    return found[0]


def _kind(block: nn.Module) -> object:
    return type(block), tuple((name, tuple(each.shape)) for name, each in block.state_dict().items())


def _refused(family: str, what: str, expected: str, found: str | None = None) -> BuildError:
    return BuildError(
        "distil.student",
        f"the family {family} can have no smaller text side here: {what}",
        artefact="distil_text",
        expected=expected,
        found=found,
        cure="correct distil_text.layers, or take the section out",
    )
