"""The training of a student in the place of an image tower: its losses, and what they are in units of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from promptray.calibrate.adapt.progress import Progress
from promptray.calibrate.distil.fit import Run, Trained, fit
from promptray.calibrate.distil.losses import (
    Scale,
    feature_loss,
    logit_loss,
    report_loss,
    similarity_loss,
    tag_loss,
)
from promptray.calibrate.distil.quantised import Simulation
from promptray.calibrate.distil.reports import Supervision
from promptray.calibrate.distil.settings import Distil
from promptray.calibrate.distil.targets import Targets
from promptray.calibrate.distil.teacher import Teacher
from promptray.export.families.base import weights_sha256

_LEAST_SPREAD = 1e-6


@dataclass(frozen=True, eq=False)
class Lesson:
    """All that a training rests on but the student.

    Attributes
    ----------
    teacher : Teacher
    targets : Targets
        Computed.
    extra : Supervision
    scale : Scale
    train, val : int arrays
        Rows that are learned from, and those that watch, whose views are the pictures themselves.
    simulation : Simulation, optional
        The quantisation that is learned under: of validation always, of training from some step on.
    """

    teacher: Teacher
    targets: Targets
    extra: Supervision
    scale: Scale
    train: NDArray[np.intp]
    val: NDArray[np.intp]
    simulation: Simulation | None = None


def scale_of(teacher: Teacher, targets: Targets, rows: Sequence[int]) -> Scale:
    """Measure the teacher's answers to some images: what losses are in units of."""
    means, variances = [], []
    for number, shape in enumerate(teacher.shapes):
        total = torch.zeros(shape, dtype=torch.float64)
        squares = torch.zeros_like(total)
        for row in rows:
            values = targets.rows(f"encoded.{number}", [row], [0])[0].double()
            total += values
            squares += values.square()
        mean = total / len(rows)
        means.append(mean.float())
        variance = float((squares / len(rows) - mean.square()).mean())
        variances.append(max(variance, _LEAST_SPREAD**2))
    spreads = {}
    for name in teacher.heads:
        logits = targets.rows(f"logits.{name}", rows, [0] * len(rows))
        spreads[name] = logits.std(dim=0, unbiased=False).clamp(min=_LEAST_SPREAD)
    return Scale(means, variances, spreads)


def train(student: nn.Module, lesson: Lesson, settings: Distil, state: Path, progress: Progress) -> Trained:
    """Train a student in the place of an image tower (see :func:`fit`)."""
    return fit(ImageRun(student.to(settings.device), lesson, settings), state, progress)


class ImageRun(Run):
    """A student in the place of an image tower."""

    def __init__(self, student: nn.Module, lesson: Lesson, settings: Distil) -> None:
        super().__init__(student, lesson, settings)
        self.scale = lesson.scale.to(settings.device)
        self.views = settings.augment.views

    def teachers(self) -> Sequence[nn.Module]:
        """Return the teacher's tower and heads."""
        return self.lesson.teacher.tower, *self.lesson.teacher.heads.values()

    def sha256(self) -> str:
        """Return a hash of student, teacher's answers, images and settings."""
        return _run_hash(self.student, self.lesson, self.settings)

    def simulated(self, step: int, last: int) -> Simulation | None:
        """Return the quantisation of a step of training."""
        rule = self.settings.simulate
        return self.lesson.simulation if rule is not None and step >= rule.start * last else None

    @property
    def deployed(self) -> Simulation | None:
        """The quantisation of what will be deployed, if it is simulated."""
        simulation: Simulation | None = self.lesson.simulation
        return simulation

    def take_ranges(self) -> None:
        """Take the ranges of what is quantised; they depend on the student's weights alone."""
        super().take_ranges()
        rule, lesson = self.settings.simulate, self.lesson
        if lesson.simulation is not None and rule is not None:
            pictures = (lesson.targets.views([row], [0]) for row in lesson.train[: rule.images].tolist())
            lesson.simulation.take_ranges(self.forward, pictures)

    def forward(self, pixels: Tensor) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Return what the student gives, and the outputs of the image side by name."""
        with self._autocast():
            ours = self.student(pixels.to(self.settings.device))
        ours = tuple(each.float() for each in ours)
        return ours, self.lesson.teacher.outputs(ours)

    def terms(
        self, rows: Sequence[int], views: Sequence[int], simulation: Simulation | None
    ) -> dict[str, Tensor]:
        """Return the weighted losses of some views by name."""
        lesson, weights, device = self.lesson, self.settings.losses, self.settings.device
        pixels = lesson.targets.views(rows, views)
        with simulation.active() if simulation else nullcontext():
            ours, outputs = self.forward(pixels)
        theirs = [
            lesson.targets.rows(f"encoded.{n}", rows, views).to(device)
            for n in range(len(lesson.teacher.shapes))
        ]
        found = {}
        if weights.feature:
            found["feature"] = weights.feature * feature_loss(ours, theirs, self.scale)
        if weights.similarity:
            found["similarity"] = weights.similarity * similarity_loss(ours, theirs, self.scale)
        if weights.logit or weights.report or weights.tag:
            found |= self._through_heads(outputs, rows, views)
        return found

    def _through_heads(
        self, outputs: Mapping[str, Tensor], rows: Sequence[int], views: Sequence[int]
    ) -> dict[str, Tensor]:
        lesson, weights, device = self.lesson, self.settings.losses, self.settings.device
        logits = {name: head(outputs) for name, head in lesson.teacher.heads.items()}
        found = {}
        if weights.logit:
            theirs = {name: lesson.targets.rows(f"logits.{name}", rows, views).to(device) for name in logits}
            found["logit"] = weights.logit * logit_loss(logits, theirs, self.scale)
        extra = lesson.extra
        if weights.report and extra.head is not None:
            bank = {name: each[rows].to(device) for name, each in extra.reports.items()}
            scores = lesson.teacher.heads[extra.head].score(outputs, bank)
            found["report"] = weights.report * report_loss(scores, extra.tags[rows].to(device))
        if weights.tag:
            each = [tag_loss(logits[name], known[rows].to(device)) for name, known in extra.known.items()]
            found["tag"] = weights.tag * torch.stack(each).mean()
        return found

    def _autocast(self) -> torch.autocast | nullcontext[None]:
        if self.settings.precision == "fp32":
            return nullcontext()
        return torch.autocast(
            self.settings.device,
            dtype=torch.bfloat16 if self.settings.precision == "bf16" else torch.float16,
        )


def _run_hash(student: nn.Module, lesson: Lesson, settings: Distil) -> str:
    extra = {**lesson.extra.reports, "tags": lesson.extra.tags}
    extra |= {f"known.{name}": each for name, each in lesson.extra.known.items()}
    facts = [
        weights_sha256(student.cpu().state_dict()),
        weights_sha256(extra),
        lesson.targets.sha256,
        msgspec.to_builtins(settings),
        lesson.train.tolist(),
        lesson.val.tolist(),
        lesson.simulation and [msgspec.to_builtins(lesson.simulation.scheme), lesson.simulation.names],
    ]
    student.to(settings.device)
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()
