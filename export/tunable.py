"""An image tower for training, and the way back to a checkpoint that ``promptray build`` reads.

A probe trains a linear layer on the tower's embeddings, fine-tuning trains both; either is saved as a
classifier in its family's own layout, with the classes in a text of the file.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import safetensors.torch
from torch import Tensor, nn

from promptray.export.families import family
from promptray.runtime.bundle.image_rules import Preprocessing
from promptray.runtime.disk import write_whole
from promptray.runtime.errors import BuildError


@dataclass(frozen=True)
class Tunable:
    """An image tower ready for training.

    Attributes
    ----------
    family : str
        For the recipe of what is saved.
    tower : nn.Module
        Maps pixels float32 (B, 3, H, W), as the runtime's preprocessing gives them, to embeddings float32
        (B, width), which are NOT of unit length. In evaluation mode; all its parameters want gradients.
    width : int
    preprocessing : Preprocessing
        The rule that pixels are made by; the bundle of what is saved has the same.
    options : mapping
        ``model_options`` for the recipe of what is saved.
    prefix : str
        What the family's layout leaves out of the tower's own names.
    classifier : (str, str)
        The layout's names of the linear layer's weight and bias.
    beside : sequence of Path
        Files that must lie beside the saved one.
    """

    family: str
    tower: nn.Module
    width: int
    preprocessing: Preprocessing
    options: Mapping[str, Any]
    prefix: str
    classifier: tuple[str, str]
    beside: Sequence[Path] = ()

    def save(self, path: Path, weight: Tensor, bias: Tensor, classes: Sequence[str]) -> None:
        """Write the tower and a linear layer on it as a checkpoint of the family, with `beside` beside it.

        The bundle that is built of it gives the logits ``tower(pixels) @ weight.T + bias``.

        Parameters
        ----------
        path : Path
            A new file, ``*.safetensors``; its folder exists.
        weight, bias : Tensor, float32, (K, width) and (K,)
        classes : sequence of str
            The K classes, in the order of `weight`.

        Raises
        ------
        ValueError
            For shapes that are not these.
        OSError
            ``FileExistsError`` when `path`, or another file of a name in `beside`, exists; the system's own.
        """
        if weight.shape != (len(classes), self.width) or bias.shape != (len(classes),):
            raise ValueError(
                f"{len(classes)} classes on width {self.width} need a weight ({len(classes)}, {self.width}) "
                f"and a bias ({len(classes)},), not {tuple(weight.shape)} and {tuple(bias.shape)}"
            )
        named = {key.removeprefix(self.prefix): value for key, value in self.tower.state_dict().items()}
        named.update(zip(self.classifier, (weight, bias), strict=True))
        content = {key: value.detach().cpu().float().contiguous() for key, value in named.items()}
        for source in self.beside:
            target = path.with_name(source.name)
            if not target.exists():
                shutil.copyfile(source, target)
            elif target.read_bytes() != source.read_bytes():
                raise FileExistsError(f"another {source.name} is in the folder already")
        write_whole(path, safetensors.torch.save(content, {"classes": json.dumps(list(classes))}))


@runtime_checkable
class TunableFamily(Protocol):
    """What a family whose image tower can be trained has besides `Family.load`."""

    def tunable(self, checkpoint: Path, text_model: Path | None, options: Mapping[str, object]) -> Tunable:
        """Load the image tower of any checkpoint of the family; see :func:`load_tunable`."""
        ...


def load_tunable(
    name: str, checkpoint: Path, text_model: Path | None, options: Mapping[str, object]
) -> Tunable:
    """Load the image tower of a checkpoint for training; arguments as a recipe has them.

    Raises
    ------
    BuildError
        ``family.unknown``; ``recipe.invalid`` for a family that cannot be tuned; else as `Family.load`.
    """
    found = family(name)
    if not isinstance(found, TunableFamily):
        raise BuildError(
            "recipe.invalid",
            f"the image tower of the family {name} cannot be tuned",
            artefact="family",
            expected="open_clip or convnext",
            found=name,
            cure="take a recipe of such a family",
        )
    return found.tunable(checkpoint, text_model, options)
