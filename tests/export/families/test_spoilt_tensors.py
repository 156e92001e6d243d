"""Whatever is wrong with one tensor of a checkpoint: a refusal that names the file's fault, never a model."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from promptray.export.checkpoint import load_checkpoint
from promptray.export.families import family
from promptray.runtime.errors import BuildError
from tests import asg_tiny, carzero_tiny, chexzero_tiny, convnext_tiny, kad_tiny, open_clip_tiny

Place = tuple[str, ...]


@dataclass(frozen=True)
class Checkpoint:
    """A tiny checkpoint of a family in a folder where others may be written beside it."""

    family: str
    path: Path
    text_model: Path | None
    options: Mapping[str, object]
    unread: tuple[str, ...] = ()
    """What a place in the file that takes no part in scoring begins or ends with."""

    def read(self) -> dict[str, Any]:
        return dict(load_checkpoint(self.path))

    def load(self, content: Mapping[str, Any]) -> None:
        path = self.path.with_name(f"spoilt{self.path.suffix}")
        torch.save(content, path)
        family(self.family).load(path, self.text_model, self.options)


def _copied(folder: Path, original: Path) -> Path:
    return Path(shutil.copy(original, folder / original.name))


def _chexzero(folder: Path) -> Checkpoint:
    sizes = chexzero_tiny.Sizes(width=64, depth=2, mlp=64, image=64, text_mlp=64, merges=20)
    path = chexzero_tiny.write_folder(folder, sizes, chexzero_tiny.random_state(sizes, 1))
    return Checkpoint("chexzero", path, None, {}, ("logit_scale",))


def _kad(folder: Path) -> Checkpoint:
    path, text_model = kad_tiny.write(folder)
    unread = ("image_encoder.resnet", "logit_scale", "position_ids", "num_batches_tracked")
    return Checkpoint("kad", path, text_model, {"image_size": 64}, unread)


def _carzero(folder: Path) -> Checkpoint:
    # The published file's other parts hold objects that cannot be written again.
    tensors = {"state_dict": load_checkpoint(carzero_tiny.FOLDER / "CARZero_best_model.ckpt")["state_dict"]}
    path = folder / "model.ckpt"
    torch.save(tensors, path)
    unread = ("position_ids", "global_embedder", "local_embedder", "pooler")
    return Checkpoint("carzero", path, carzero_tiny.FOLDER / "text_model", {}, unread)


def _asg(folder: Path) -> Checkpoint:
    path = _copied(folder, asg_tiny.CHECKPOINT)
    return Checkpoint("asg", path, asg_tiny.TEXT_MODEL, {}, ("position_ids", "num_batches_tracked"))


def _convnext(folder: Path) -> Checkpoint:
    path = _copied(folder, convnext_tiny.FOLDER / convnext_tiny.CHECKPOINTS["torchvision"])
    # Its layer_scale may be written without the two dimensions of length 1, as timm has it.
    return Checkpoint("convnext", path, None, {"preprocessing": "squash"}, ("layer_scale", "best_score"))


def _timm(folder: Path) -> Checkpoint:
    path = _copied(folder, convnext_tiny.FOLDER / convnext_tiny.CHECKPOINTS["timm"])
    options = {"preprocessing": "squash", "classes": list(convnext_tiny.DESCRIPTIONS)}
    return Checkpoint("convnext", path, None, options)


def _open_clip(folder: Path) -> Checkpoint:
    shutil.copytree(open_clip_tiny.FOLDER, folder, dirs_exist_ok=True)
    return Checkpoint("open_clip", folder / open_clip_tiny.WEIGHTS, None, {}, ("position_ids",))


FAMILIES = {
    "chexzero": _chexzero,
    "kad": _kad,
    "carzero": _carzero,
    "asg": _asg,
    "torchvision": _convnext,
    "timm": _timm,
    "open_clip": _open_clip,
}
SPOILT: dict[str, Callable[[Tensor], Tensor | None]] = {
    "missing": lambda tensor: None,
    "flat": lambda tensor: tensor.reshape(-1) if tensor.ndim != 1 else tensor[None],
    "one dimension more": lambda tensor: tensor[None],
    "one number": lambda tensor: tensor.reshape(-1)[0] if tensor.ndim else tensor[None],
    "empty": lambda tensor: tensor.reshape(-1)[:0],
    "NaN": lambda tensor: torch.full_like(tensor, torch.nan, dtype=torch.float32),
    "integers": lambda tensor: tensor.round().long() if tensor.is_floating_point() else tensor.float(),
    "complex": lambda tensor: tensor.to(torch.complex64),
}


def _places(content: Mapping[str, Any], above: Place = ()) -> Iterator[Place]:
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield (*above, key)
        elif isinstance(value, Mapping):
            yield from _places(value, (*above, key))


def _at(content: Mapping[str, Any], place: Place) -> Any:
    return content[place[0]] if len(place) == 1 else _at(content[place[0]], place[1:])


def _with(content: Mapping[str, Any], place: Place, value: Tensor | None) -> dict[str, Any]:
    changed = dict(content)
    if len(place) > 1:
        changed[place[0]] = _with(content[place[0]], place[1:], value)
    elif value is None:
        del changed[place[0]]
    else:
        changed[place[0]] = value
    return changed


@pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)
def test_a_spoilt_tensor_is_refused(make: Callable[[Path], Checkpoint], tmp_path: Path) -> None:
    checkpoint = make(tmp_path)
    content = checkpoint.read()
    places = [
        place for place in _places(content) if not any(each in ".".join(place) for each in checkpoint.unread)
    ]
    # Every fault at two tensors, in even steps through the file.
    chosen = places[:: len(places) // (2 * len(SPOILT))]
    assert len(chosen) >= 2 * len(SPOILT)
    for place, (fault, spoil) in zip(chosen, itertools.cycle(SPOILT.items())):
        with pytest.raises(BuildError) as refused:
            checkpoint.load(_with(content, place, spoil(_at(content, place))))
        assert refused.value.code.startswith("checkpoint."), (place, fault, str(refused.value))
        assert "\x1b" not in str(refused.value)


def test_a_size_is_refused_by_the_name_of_the_tensor_that_should_tell_it(tmp_path: Path) -> None:
    checkpoint = _chexzero(tmp_path)
    content = checkpoint.read()
    for key in ("positional_embedding", "visual.positional_embedding", "text_projection", "visual.proj"):
        with pytest.raises(BuildError, match=f"{key}: expected 2 dimensions"):
            checkpoint.load(_with(content, (key,), content[key].flatten()))
