"""A distillation from beginning to end: teacher's answers, training, checkpoint, history and curve."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout
from torch import nn

from promptray.calibrate.adapt.progress import Progress
from promptray.calibrate.adapt.whole import remove_partial, replace_whole
from promptray.calibrate.distil.checkpoint import StudentFacts, StudentSide, new_student, save_student
from promptray.calibrate.distil.curve import loss_curve
from promptray.calibrate.distil.fit import Trained
from promptray.calibrate.distil.images import DistilImages
from promptray.calibrate.distil.quantised import Simulation
from promptray.calibrate.distil.reports import supervision
from promptray.calibrate.distil.settings import Distil
from promptray.calibrate.distil.student import Student
from promptray.calibrate.distil.targets import Targets
from promptray.calibrate.distil.teacher import Findings, Teacher, teacher_of
from promptray.calibrate.distil.train import Lesson, scale_of, train
from promptray.calibrate.distil.views import pixels
from promptray.calibrate.distil.weights import load_tower
from promptray.calibrate.quantise.scheme import Int8
from promptray.export.families.base import LoadedModel, Side
from promptray.runtime.errors import BuildError

STATE, HISTORY, CURVE = "state.safetensors", "history.json", "curve.svg"


def distil(
    model: LoadedModel,
    findings: Findings,
    settings: Distil,
    images: DistilImages,
    folder: Path,
    progress: Progress,
    *,
    weights: Path | None = None,
    answers: Path | None = None,
    scheme: Int8 | None = None,
) -> StudentFacts:
    """Train a student in the place of a model's image tower.

    Parameters
    ----------
    model : LoadedModel
        The teacher. Not changed.
    findings : mapping of str to (mapping of str to EncodedFinding)
        By head and key: whose logits are learned, through the head with its real bank.
    settings : Distil
    images : DistilImages
    folder : Path
        For everything that is written; a run that was killed goes on there, to the same bits on a CPU.
    progress : callable
        Called with (stage, message, fraction of the stage).
    weights : Path, optional
        File that ``settings.weights`` names.
    answers : Path, optional
        Folder for the teacher's answers, which other students may share; by default `folder`.
    scheme : Int8, optional
        How the image graph will be quantised, for ``settings.simulate``.

    Returns
    -------
    StudentFacts
        As in ``student.json``; :func:`promptray.calibrate.distil.checkpoint.student_model` makes the model.

    Raises
    ------
    BuildError
        ``distil.*``, ``checkpoint.*`` for the student's own weights, ``score.not-finite``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        student = new_student(model, settings)
        if weights is not None and isinstance(student, Student):
            load_tower(student, weights)
        simulation = _simulation(model, student, settings, scheme)
        learned, watching = images.divide(settings.validation, settings.seed)
        teacher = teacher_of(model, findings)
        _require_use(settings, teacher)
        extra = supervision(model, findings, images, settings.losses)
        made = partial(pixels, rule=model.preprocessing)
        targets = Targets(
            answers or folder, teacher, images, settings.augment, settings.seed, made, learned.tolist()
        )
        targets.compute(
            settings.device, lambda done, all_: progress("teacher", f"{done} of {all_} parts", done / all_)
        )
        scale = scale_of(teacher, targets, learned.tolist())
        student.start_at(scale.means)
        lesson = Lesson(teacher, targets, extra, scale, learned, watching, simulation)
        trained = train(student, lesson, settings, folder / STATE, progress)
        replace_whole(folder / HISTORY, msgspec.json.format(msgspec.json.encode(trained.history)) + b"\n")
        replace_whole(folder / CURVE, loss_curve(trained.history).encode())
        warnings = [*images.warnings, *_warnings(trained)]
        return save_student(
            folder, model, student, settings, images.facts, len(learned), trained, warnings, scheme
        )


def _simulation(
    model: LoadedModel, student: nn.Module, settings: Distil, scheme: Int8 | None
) -> Simulation | None:
    if (settings.simulate is None) != (scheme is None):
        raise BuildError(
            "distil.settings",
            "a quantisation is simulated where one is named, and only there",
            artefact="distil.simulate",
            expected="simulate and the scheme of the image graph, or neither",
            found="simulate alone" if scheme is None else "a scheme alone",
            cure="say how the image graph will be quantised, or leave simulate out",
        )
    if scheme is None:
        return None
    side = StudentSide(student, model.image.module).eval()
    return Simulation(Side(side, model.image.inputs, model.image.outputs), scheme)


def _require_use(settings: Distil, teacher: Teacher) -> None:
    """Refuse losses of logits where no finding is named."""
    asked = [name for name in ("logit", "report", "tag") if getattr(settings.losses, name)]
    if asked and not teacher.heads:
        raise BuildError(
            "distil.settings",
            "there is no finding whose logits could be learned",
            artefact=f"distil.losses.{asked[0]}",
            expected="at least one finding",
            found="none",
            cure="name findings, or leave these losses out",
        )


def _warnings(trained: Trained) -> list[str]:
    if trained.best == 0:
        return ["training did not lower the validation loss: this student is as it began"]
    return []


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder; ``distil.state`` where one is at work."""
    try:
        with FileLock(folder / ".lock", timeout=0):
            remove_partial(folder)
            yield
    except Timeout:
        raise BuildError(
            "distil.state",
            "another run is at work in this folder",
            artefact=folder.name,
            cure="wait for it, or choose another folder",
        ) from None
