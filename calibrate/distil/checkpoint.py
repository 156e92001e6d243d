"""A student on disk, ``student.safetensors`` with ``student.json``, and the model that it makes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import safetensors.torch
import torch
from torch import Tensor, nn

from promptray.calibrate.adapt.whole import replace_whole
from promptray.calibrate.distil.fit import Epoch, Trained
from promptray.calibrate.distil.own_tower import OwnTower
from promptray.calibrate.distil.settings import Distil
from promptray.calibrate.distil.student import Student
from promptray.calibrate.distil.teacher import finish, model_sha256, tower_shapes
from promptray.calibrate.distil.torch_side import sides_reference
from promptray.calibrate.quantise.scheme import Int8
from promptray.export.families.base import LoadedModel, Side
from promptray.export.layout import NO_KEY, fit_state_dict
from promptray.export.safetensors_checkpoint import METADATA, read_safetensors
from promptray.runtime.bundle.calibration_set import CalibrationSet
from promptray.runtime.disk import hash_file
from promptray.runtime.errors import BuildError

WEIGHTS, FACTS = "student.safetensors", "student.json"


class StudentFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``student.json`` says. No patient data."""

    schema: Literal["promptray-student"] = "promptray-student"
    schema_version: Literal[1] = 1
    settings: Distil
    teacher: str
    """Hash of the model whose tower it stands in for: image side and heads."""
    weights: str
    """Hash of the file of weights."""
    images: CalibrationSet
    trained: int
    """Images that were learned from; the others watched."""
    parameters: int
    teacher_parameters: int
    best: int
    history: list[Epoch]
    warnings: list[str]
    libraries: dict[str, str]
    scheme: Int8 | None = None
    """The quantisation that it learned under."""


class StudentSide(nn.Module):
    """An image side with a student in the place of the tower.

    Parameters
    ----------
    student : module
    teacher : module
        The model's own image side; all behind its tower is used.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the model's own image side."""
        return self.finish(*self.encode(pixels))

    def encode(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return what the student gives: so a student can be a teacher."""
        found: tuple[Tensor, ...] = self.student(pixels)
        return found

    def finish(self, *encoded: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs, of what the student gives."""
        return finish(self.teacher, encoded)


def new_student(model: LoadedModel, settings: Distil) -> Student | OwnTower:
    """Make the student that settings ask for: seeded and without weights, or with the teacher's.

    Raises
    ------
    BuildError
        ``distil.student``.
    """
    if settings.layers is not None:
        return OwnTower(model, settings.layers).eval()
    shapes, grid = tower_shapes(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return Student(settings.student, model.preprocessing, shapes, grid).eval()


def save_student(
    folder: Path,
    model: LoadedModel,
    student: nn.Module,
    settings: Distil,
    images: CalibrationSet,
    learned: int,
    trained: Trained,
    warnings: Sequence[str],
    scheme: Int8 | None = None,
) -> StudentFacts:
    """Write a student; the facts last, so that a folder that has them is whole."""
    content = safetensors.torch.save({key: each.contiguous() for key, each in student.state_dict().items()})
    replace_whole(folder / WEIGHTS, content)
    facts = StudentFacts(
        settings=settings,
        teacher=model_sha256(model),
        weights=hashlib.sha256(content).hexdigest(),
        images=images,
        trained=learned,
        parameters=_count(student),
        teacher_parameters=_count(model.image.module),
        best=trained.best,
        history=trained.history,
        warnings=list(warnings),
        libraries=_libraries(),
        scheme=scheme,
    )
    replace_whole(folder / FACTS, msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n")
    return facts


def read_facts(folder: Path) -> StudentFacts:
    """Read and check what a student's file says of it.

    Raises
    ------
    BuildError
        ``distil.checkpoint``.
    """
    try:
        return msgspec.json.decode((folder / FACTS).read_bytes(), type=StudentFacts)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _refused(FACTS, f"it cannot be read ({type(error).__name__})") from error


def student_model(model: LoadedModel, folder: Path) -> LoadedModel:
    """Return a model whose image tower is the student in a folder; all else is the teacher's.

    Parameters
    ----------
    model : LoadedModel
        The teacher. Not changed.
    folder : Path
        With ``student.safetensors`` and ``student.json``.

    Returns
    -------
    LoadedModel
        With the same inputs, outputs, heads, banks and text side. The reference of a head is the torch
        arithmetic of these sides: no original of a student exists.

    Raises
    ------
    BuildError
        ``distil.checkpoint`` for a damaged one, or one of another model.
    """
    facts = read_facts(folder)
    if facts.teacher != model_sha256(model):
        raise _refused(FACTS, "it stands in for the tower of another model", "distil again, with this model")
    path = folder / WEIGHTS
    try:
        found = hash_file(path)[0]
    except OSError as error:
        raise _refused(WEIGHTS, f"it cannot be read ({type(error).__name__})") from error
    if found != facts.weights:
        raise _refused(WEIGHTS, "it is not the file that student.json was written for")
    student = new_student(model, facts.settings)
    content: dict[str, Any] = read_safetensors(path)
    content.pop(METADATA)
    fit_state_dict(student, content, artefact=WEIGHTS, optional=NO_KEY, ignored=NO_KEY)
    side = StudentSide(student.requires_grad_(False), model.image.module).eval()
    image = Side(side, model.image.inputs, model.image.outputs)
    changed = dataclasses.replace(model, image=image, notes=[*model.notes, *_notes(facts, student)])
    heads = [dataclasses.replace(head, reference=sides_reference(changed, head.name)) for head in model.heads]
    return dataclasses.replace(changed, heads=heads)


def _notes(facts: StudentFacts, student: Student | OwnTower) -> list[str]:
    images = facts.images.images
    return [
        f"image side: {facts.settings.name}, distilled from this checkpoint's tower on {images} images; "
        f"{facts.parameters} parameters in the place of {facts.teacher_parameters}",
        *student.notes,
        *([] if facts.scheme is None else ["it learned under the simulated quantisation int8-qdq"]),
    ]


def _count(module: nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


def _libraries() -> dict[str, str]:
    import timm

    return {"timm": timm.__version__, "torch": str(torch.__version__)}


def _refused(artefact: str, why: str, cure: str = "distil again, or copy both files again") -> BuildError:
    return BuildError("distil.checkpoint", f"the student cannot be used: {why}", artefact=artefact, cure=cure)
