"""The training of a student: AdamW, a rate that warms up and falls as a cosine, the best epoch kept."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from promptray.calibrate.adapt.progress import Progress
from promptray.calibrate.adapt.training_state import TrainingState
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
from promptray.runtime.errors import BuildError

#: Gradients longer than this are shortened to it.
_CLIP = 1.0
_LEAST_SPREAD = 1e-6


@dataclass
class Epoch:
    """Losses of one epoch, weighted, and its last rate. Epoch 0 is the start: nothing was trained."""

    train_loss: float | None
    val_loss: float
    rate: float
    val_terms: dict[str, float]


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


@dataclass(frozen=True)
class Trained:
    """What training gave; the student itself has the weights of the best epoch.

    Attributes
    ----------
    history : list of Epoch
        Epoch 0 is the student as it began.
    best : int
        The epoch of the least validation loss; 0 means that training did not help.
    """

    history: list[Epoch]
    best: int


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


def fit(run: Run, state: Path, progress: Progress) -> Trained:
    """Train a run's student in place, and leave it with the weights of its best epoch.

    Deterministic on a CPU: order and views of an epoch depend on seed and epoch alone, so training that was
    killed and goes on from `state` gives the same bits as training that was not.

    Raises
    ------
    PromptRayError
        ``distil.state``; ``distil.diverged`` if a loss is NaN or infinite.
    """
    student, lesson, settings, rest = run.student, run.lesson, run.settings, 0
    kept = TrainingState(state, run.sha256(), Epoch, "distil.state")
    per_epoch = len(list(_batches(lesson.train, settings.batch)))
    last = min(settings.epochs * per_epoch, settings.steps or settings.epochs * per_epoch)
    with _deterministic(settings.device):
        found = kept.load(student, run.optimiser)
        if found:
            best, history = found
            run.take_ranges()
            rest = (len(history) - 1) * per_epoch
        else:
            best, history = _copy(student), [run.validate(None, 0.0)]
            _require_finite(history[0], 0)
        while rest < last:
            number = len(history)
            taught = run.epoch(number, rest, last)
            rest += per_epoch
            epoch = run.validate(taught, run.rate(min(rest, last) - 1, last))
            _require_finite(epoch, number)
            history.append(epoch)
            if _best(history) == number:
                best = _copy(student)
            kept.save(student, best, run.optimiser, history)
            said = f"epoch {number}: loss {taught:.4f}, validation {epoch.val_loss:.4f}"
            progress("distil", said, min(rest, last) / last)
    student.load_state_dict(best)
    student.to("cpu").eval()
    for module in run.teachers():
        module.to("cpu")
    return Trained(history, _best(history))


class Run(ABC):
    """A student with its optimiser, and one pass of what it learns from at a time.

    Parameters
    ----------
    student : module
        On the settings' device.
    lesson
        Rows in ``train`` and ``val``, and what :meth:`terms` needs.
    settings
        How it learns.
    """

    #: Views of each row.
    views = 1

    def __init__(self, student: nn.Module, lesson: Any, settings: Any) -> None:
        self.student, self.lesson, self.settings = student, lesson, settings
        for module in self.teachers():
            module.to(settings.device)
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, each in student.named_parameters():
            (others if each.ndim < 2 or name.endswith("bias") else matrices).append(each)
        groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=settings.rate, weight_decay=settings.weight_decay)
        self.scaler = torch.amp.GradScaler(settings.device, enabled=settings.precision == "fp16")

    def rate(self, step: int, last: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        warm = math.ceil(self.settings.warm_up * last)
        if step < warm:
            return self.settings.rate * (step + 1) / warm
        return self.settings.rate * (1 + math.cos(math.pi * (step - warm) / max(last - warm, 1))) / 2

    def epoch(self, number: int, step: int, last: int) -> float:
        """Run one epoch or what is left of it, and return the mean loss of its images."""
        seed = self.settings.seed
        torch.manual_seed(int(np.random.default_rng([seed, number]).integers(2**31)))  # of dropped paths
        rng = np.random.default_rng([seed, number, 1])
        order = rng.permutation(self.lesson.train)
        views = rng.integers(0, self.views, len(order))
        self.student.train()
        total, seen = torch.zeros((), dtype=torch.float64), 0
        for places in _batches(np.arange(len(order)), self.settings.batch):
            if step >= last:
                break
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate(step, last)
            terms = self.terms(order[places].tolist(), views[places].tolist(), self.simulated(step, last))
            loss = sum(terms.values(), torch.zeros(()))
            self.optimiser.zero_grad(set_to_none=True)
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.student.parameters(), _CLIP)
            self.scaler.step(self.optimiser)
            self.scaler.update()
            total += loss.detach().double().cpu() * len(places)
            seen += len(places)
            step += 1
        return float(total) / seen

    def validate(self, taught: float | None, rate: float) -> Epoch:
        """Return the losses of the rows that only watch; of what will be deployed, if it is simulated."""
        self.take_ranges()
        sums: dict[str, float] = {}
        with torch.no_grad():
            for rows in _batches(self.lesson.val, self.settings.batch):
                terms = self.terms(rows.tolist(), [0] * len(rows), self.deployed)
                for name, value in terms.items():
                    sums[name] = sums.get(name, 0.0) + float(value) * len(rows) / len(self.lesson.val)
        return Epoch(taught, sum(sums.values()), rate, sums)

    def simulated(self, step: int, last: int) -> Simulation | None:
        """Return the quantisation of a step of training, if it is under one."""
        return None

    def take_ranges(self) -> None:
        """Make ready to be watched."""
        self.student.eval()

    @property
    def deployed(self) -> Simulation | None:
        """The quantisation of what will be deployed, if it is quantised."""
        return None

    @abstractmethod
    def terms(
        self, rows: Sequence[int], views: Sequence[int], simulation: Simulation | None
    ) -> dict[str, Tensor]:
        """Return the weighted losses of some views by name."""

    @abstractmethod
    def teachers(self) -> Sequence[nn.Module]:
        """Return what must be on the student's device, and is not trained."""

    @abstractmethod
    def sha256(self) -> str:
        """Return a hash of all that the training depends on."""


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


def _batches(rows: NDArray[np.intp], size: int) -> Iterator[NDArray[np.intp]]:
    """Cut rows into batches; one alone has none to be compared with, and joins the batch before."""
    starts = list(range(0, len(rows), size))
    if len(starts) > 1 and len(rows) - starts[-1] == 1:
        starts.pop()
    for number, start in enumerate(starts):
        yield rows[start : starts[number + 1] if number + 1 < len(starts) else None]


def _best(history: Sequence[Epoch]) -> int:
    return int(np.argmin([epoch.val_loss for epoch in history]))


def _copy(student: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().cpu().clone() for key, value in student.state_dict().items()}


def _require_finite(epoch: Epoch, number: int) -> None:
    if not np.isfinite([epoch.val_loss, epoch.train_loss or 0.0]).all():
        raise BuildError(
            "distil.diverged",
            "the loss of the distillation is no longer a finite number",
            artefact=f"epoch {number}",
            cure="set distil.rate lower or distil.warm_up longer; the teacher's answers are kept",
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


@contextmanager
def _deterministic(device: str) -> Iterator[None]:
    """Let torch refuse what would give other bits on a second run; a GPU has no such bilinear resampling."""
    before = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[] if device == "cpu" else None):
        torch.use_deterministic_algorithms(device == "cpu")
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
