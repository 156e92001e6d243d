"""The fitting of a student: AdamW, a rate that warms up and falls as a cosine, the best epoch kept."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from promptray.calibrate.adapt.progress import Progress
from promptray.calibrate.adapt.training_state import TrainingState
from promptray.calibrate.distil.quantised import Simulation
from promptray.runtime.errors import BuildError

#: Gradients longer than this are shortened to it.
_CLIP = 1.0


@dataclass
class Epoch:
    """Losses of one epoch, weighted, and its last rate. Epoch 0 is the start: nothing was trained."""

    train_loss: float | None
    val_loss: float
    rate: float
    val_terms: dict[str, float]


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
