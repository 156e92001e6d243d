"""A student that begins with weights of its own architecture."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from promptray.calibrate.distil.student import Student
from promptray.export.layout import NO_KEY, fit_state_dict
from promptray.export.safetensors_checkpoint import METADATA, read_safetensors
from promptray.runtime.errors import BuildError

# What architectures of timm call their classifier, which a student does not have.
_CLASSIFIER = r"^(head|head\.fc|fc|classifier|last_linear|head_dist)\.(weight|bias)$"


def load_tower(student: Student, path: Path) -> None:
    """Load a tower's weights, as timm publishes them: a safetensors file, and no pickle.

    Where the student reads one plane and they read three, its kernel is the sum of theirs: of a grey picture
    all planes are the same.

    Raises
    ------
    BuildError
        ``checkpoint.not-found``, ``checkpoint.format`` or ``checkpoint.layout``.
    """
    if not path.is_file():
        raise BuildError(
            "checkpoint.not-found",
            "the student's weights do not exist",
            artefact="distil.weights",
            expected=f"a safetensors file {path.name}",
            cure="correct the path, which is relative to the recipe; nothing is downloaded",
        )
    content = read_safetensors(path)
    content.pop(METADATA)
    wanted = student.tower.state_dict()
    for key, given in content.items():
        if key in wanted and _reads_colours(given, wanted[key]):
            content[key] = given.sum(dim=1, keepdim=True)
    fit_state_dict(
        student.tower,
        content,
        artefact=path.name,
        optional=NO_KEY,
        ignored=_CLASSIFIER,
        cure="give weights of the architecture that distil.student names, for pixels of the model's size",
    )


def _reads_colours(given: Tensor, wanted: Tensor) -> bool:
    """Tell whether a weight is a kernel of three planes where one of a single plane is wanted."""
    planes = [each.shape[1] if each.ndim == 4 else 0 for each in (given, wanted)]
    return planes == [3, 1] and given.sum(dim=1, keepdim=True).shape == wanted.shape
