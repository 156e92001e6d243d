"""Whatever is wrong with one tensor of a checkpoint: a refusal that names the file's fault, never a model."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from promptray.export.checkpoint import load_checkpoint
from promptray.export.families import family
from promptray.runtime.errors import BuildError
from tests import (
    asg_tiny,
    carzero_tiny,
    chexzero_tiny,
    convnext_tiny,
    kad_tiny,
    open_clip_tiny,
    open_clip_tuned_tiny,
    squeezenet_tiny,
)

Place = tuple[str, ...]


@dataclass(frozen=True)
class Checkpoint:
    """A tiny checkpoint of a family in a folder where others may be written beside it."""

    family: str
    path: Path
    text_model: Path | None
    options: Mapping[str, object]
    unread: tuple[str, ...] = ()
    """Parts of the names of tensors that take no part in scoring."""
    named: bool = True
    """Whether refusals use the file's own names: torchvision's are told in timm's words."""

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
    unread = ("image_encoder.resnet.", "logit_scale", "position_ids", "num_batches_tracked")
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
    return Checkpoint(
        "asg", path, asg_tiny.TEXT_MODEL, {}, ("position_ids", "num_batches_tracked", "callbacks")
    )


def _convnext(folder: Path) -> Checkpoint:
    path = _copied(folder, convnext_tiny.FOLDER / convnext_tiny.CHECKPOINTS["torchvision"])
    # Its layer_scale may be written without the two dimensions of length 1, as timm has it.
    unread = ("layer_scale", "best_score")
    return Checkpoint("convnext", path, None, {"preprocessing": "squash"}, unread, named=False)


def _timm(folder: Path) -> Checkpoint:
    path = _copied(folder, convnext_tiny.FOLDER / convnext_tiny.CHECKPOINTS["timm"])
    options = {"preprocessing": "squash", "classes": list(convnext_tiny.DESCRIPTIONS)}
    return Checkpoint("convnext", path, None, options)


def _squeezenet(folder: Path) -> Checkpoint:
    path = folder / "squeezenet.pth"
    torch.save(squeezenet_tiny.random_state(1), path)
    options = {"preprocessing": "square", "classes": squeezenet_tiny.CLASSES, "image_size": 32}
    return Checkpoint("squeezenet", path, None, options)


def _open_clip(folder: Path) -> Checkpoint:
    shutil.copytree(open_clip_tiny.FOLDER, folder, dirs_exist_ok=True)
    return Checkpoint("open_clip", folder / open_clip_tiny.WEIGHTS, None, {}, ("position_ids",))


def _tuned(folder: Path) -> Checkpoint:
    open_clip_tuned_tiny.write_tuned(folder, {})
    path = folder / "tuned.ckpt"
    torch.save(open_clip_tuned_tiny.tuned_state(), path)
    options = {**open_clip_tuned_tiny.OPTIONS, "classes": open_clip_tuned_tiny.ORDER}
    return Checkpoint("open_clip", path, None, options)


FAMILIES = {
    "chexzero": _chexzero,
    "kad": _kad,
    "carzero": _carzero,
    "asg": _asg,
    "torchvision": _convnext,
    "timm": _timm,
    "open_clip": _open_clip,
    "tuned open_clip": _tuned,
    "squeezenet": _squeezenet,
}
SPOILT: dict[str, Callable[[Tensor], Tensor | None]] = {
    "missing": lambda tensor: None,
    "flat": lambda tensor: tensor.reshape(-1) if tensor.ndim != 1 else tensor[None],
    "transposed": lambda tensor: tensor.permute(tuple(reversed(range(tensor.ndim)))),
    "one dimension more": lambda tensor: tensor[None],
    "one number": lambda tensor: tensor.reshape(-1)[0] if tensor.ndim else tensor[None],
    "empty": lambda tensor: tensor.reshape(-1)[:0],
    "NaN": lambda tensor: torch.full_like(tensor, torch.nan, dtype=torch.float32),
    "integers": lambda tensor: tensor.round().long() if tensor.is_floating_point() else tensor.float(),
    "complex": lambda tensor: tensor.to(torch.complex64),
}


#: Tensors that each fault is tried at.
_TRIED = 2


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


def cases(content: Mapping[str, Any], unread: Sequence[str]) -> Iterator[tuple[Place, str, Tensor | None]]:
    """Yield every fault of every tensor that is read, where it changes the tensor."""
    for place in _places(content):
        if any(each in ".".join(place) for each in unread):
            continue
        for fault, spoil in SPOILT.items():
            tensor = _at(content, place)
            spoilt = spoil(tensor)
            same = spoilt is not None and spoilt.shape == tensor.shape and spoilt.dtype == tensor.dtype
            if fault == "NaN" or not same:
                yield place, fault, spoilt


def refuse(checkpoint: Checkpoint, content: Mapping[str, Any], place: Place, spoilt: Tensor | None) -> None:
    """Hold that a checkpoint with one tensor spoilt is refused, in words that name the tensor."""
    with pytest.raises(BuildError) as refused:
        checkpoint.load(_with(content, place, spoilt))
    message = str(refused.value)
    assert refused.value.code.startswith("checkpoint."), message
    assert place[-1].removeprefix("CARZero.") in message or not checkpoint.named, message
    assert message.isprintable()


@pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)
def test_a_spoilt_tensor_is_refused_by_its_name(make: Callable[[Path], Checkpoint], tmp_path: Path) -> None:
    """Every fault at two tensors, half a file apart."""
    checkpoint = make(tmp_path)
    content = checkpoint.read()
    every = list(cases(content, checkpoint.unread))
    for fault in SPOILT:
        places = [(place, spoilt) for place, named, spoilt in every if named == fault]
        assert len(places) >= _TRIED
        for number in range(_TRIED):
            refuse(checkpoint, content, *places[number * len(places) // _TRIED])


def test_a_size_is_refused_by_the_name_of_the_tensor_that_should_tell_it(tmp_path: Path) -> None:
    checkpoint = _chexzero(tmp_path)
    content = checkpoint.read()
    for key, expected in {
        "positional_embedding": "(*, 64)",
        "visual.positional_embedding": "(*, 64)",
        "text_projection": "(64, *)",
        "visual.proj": "(64, *)",
    }.items():
        flat = content[key].flatten()
        message = re.escape(f"shape of {key}: expected {expected}, found ({len(flat)},)")
        with pytest.raises(BuildError, match=message):
            checkpoint.load(_with(content, (key,), flat))


def test_no_fault_of_a_tied_tensor_is_told_in_other_words(tmp_path: Path) -> None:
    """KAD's file holds some tensors twice."""
    checkpoint = _kad(tmp_path)
    content = checkpoint.read()
    read, twin = ("image_encoder", "res_features.0.weight"), ("image_encoder", "resnet.conv1.weight")
    nothing = torch.full_like(_at(content, read), torch.nan)
    for spoilt in (_with(content, read, nothing), _with(_with(content, read, nothing), twin, nothing)):
        with pytest.raises(
            BuildError, match=r"do not fit the layout: not finite: image_encoder\.res_features"
        ):
            checkpoint.load(spoilt)
    with pytest.raises(
        BuildError, match=r"two different values .*: not finite: image_encoder\.resnet\.conv1"
    ):
        checkpoint.load(_with(content, twin, nothing))
