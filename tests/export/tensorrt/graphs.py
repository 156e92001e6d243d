"""Graphs of five families, small but for the width of their attention heads: 64, as published."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from benchmarks.full_size import write_asg, write_biomedclip, write_carzero
from benchmarks.rtx_layers import load
from promptray.export.families import family
from promptray.export.families.base import LoadedModel, Side
from tests import chexzero_tiny, convnext_tiny

#: Writers of checkpoints with few blocks of two heads in each tower; CARZero sums the last four of its BERT.
_WRITERS = {
    "carzero": partial(write_carzero, depth=4, heads=2),
    "asg": partial(write_asg, depth=2, heads=2),
    "biomedclip": partial(write_biomedclip, depth=2, heads=2),
}


def small_model(name: str, folder: Path) -> LoadedModel:
    """Load a small model of a family; its checkpoint is written into `folder`."""
    if name == "convnext":
        checkpoint = convnext_tiny.FOLDER / convnext_tiny.CHECKPOINTS["torchvision"]
        return family(name).load(checkpoint, None, {"preprocessing": "squash"})
    if name == "chexzero":
        sizes = chexzero_tiny.Sizes()
        checkpoint = chexzero_tiny.write_folder(folder, sizes, chexzero_tiny.random_state(sizes, 0))
        return family(name).load(checkpoint, None, {})
    torch.manual_seed(0)
    return load(folder, _WRITERS[name](folder))


def sides_of(model: LoadedModel) -> dict[str, Side]:
    """Return image, text and head sides by name."""
    sides = {"image": model.image, **{f"head {head.name}": head.side for head in model.heads}}
    return sides if model.text is None else {**sides, "text": model.text.side}
