"""Fine-tuning: the image tower and a linear layer on it, from the probe's on, until validation says stop.

The settings begin as those of the density study (Molina-Roman et al., CBMS 2025, arXiv 2506.13964): AdamW at
1e-4, weight decay 0.01, batches of 64, early stopping, no augmentation; label smoothing is that of its probe.
It lowered the rate after 50 epochs without progress and stopped after 30, so the rate could never fall: here
it falls first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from promptray.calibrate.adapt.pictures import Levels
from promptray.calibrate.adapt.progress import Progress
from promptray.calibrate.adapt.training_state import Epoch, TrainingState
from promptray.export.families.base import weights_sha256
from promptray.runtime.errors import PromptRayError

Pixels = Callable[[Sequence[Levels]], NDArray[np.float32]]


@dataclass(frozen=True)
class FineTuning:
    """How to train.

    Attributes
    ----------
    epochs : int
        At most.
    batch : int
        Images of a step.
    rate, weight_decay : float
        Of AdamW.
    smoothing : float
        Share of the truth that is spread over all classes.
    factor, patience : float, int
        The rate is multiplied by `factor` after more than `patience` epochs without a better validation loss.
    stop : int
        Training ends after so many epochs without a better one.
    class_weights : {"none", "balanced"}
        Whether each image counts once, or each class.
    seed : int
    """

    epochs: int = 100
    batch: int = 64
    rate: float = 1e-4
    weight_decay: float = 0.01
    smoothing: float = 0.1
    factor: float = 0.5
    patience: int = 4
    stop: int = 10
    class_weights: Literal["none", "balanced"] = "none"
    seed: int = 0


class Network(nn.Module):
    """A tower with a linear layer on its embeddings: pixels (B, C, H, W) -> logits (B, K)."""

    def __init__(self, tower: nn.Module, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.tower = tower
        self.classifier = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            self.classifier.weight.copy_(weight)
            self.classifier.bias.copy_(bias)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.classifier(self.tower(pixels))
        return logits


@dataclass(frozen=True)
class Examples:
    """Pictures with their classes, and how they become pixels.

    Attributes
    ----------
    pictures : sequence of ndarray
        Levels, as :meth:`PictureReader.picture` gives them; all in memory.
    classes : ndarray of int64, shape (n,)
    hashes : sequence of str
        Of the files.
    pixels : callable
    """

    pictures: Sequence[Levels]
    classes: NDArray[np.int64]
    hashes: Sequence[str]
    pixels: Pixels

    def batches(self, order: NDArray[np.intp], size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pixels (B, C, H, W) and classes (B,)."""
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            pixels = self.pixels([self.pictures[row] for row in rows])
            yield torch.from_numpy(pixels), torch.from_numpy(self.classes[rows])


@dataclass(frozen=True)
class FineTuned:
    """What training gave; the network itself holds the weights of the best epoch.

    Attributes
    ----------
    history : list of Epoch
        Epoch 0 is the network as it began.
    best : int
        The epoch of the least validation loss; 0 means that training did not help.
    """

    history: list[Epoch]
    best: int


def fine_tune(
    network: Network,
    train: Examples,
    val: Examples,
    settings: FineTuning,
    state: Path,
    progress: Progress,
) -> FineTuned:
    """Train a network in place, and leave it with the weights of its best epoch.

    Deterministic on a CPU: the order of an epoch depends on seed and epoch alone, so training that was killed
    and goes on from `state` gives the same bits as training that was not.

    Parameters
    ----------
    network : Network
    train, val : Examples
    settings : FineTuning
    state : Path
        File that is written after every epoch, and gone on from if it is there.
    progress : callable
        Called with (stage, message, fraction).

    Raises
    ------
    PromptRayError
        ``adapt.state``; ``adapt.diverged`` if a loss is NaN or infinite.
    """
    kept = TrainingState(state, _run_hash(network, train, val, settings), Epoch)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=settings.factor, patience=settings.patience
    )
    loss = nn.CrossEntropyLoss(_weights(train.classes, network, settings), label_smoothing=settings.smoothing)
    with _deterministic():
        found = kept.load(network, optimiser)
        if found:
            best, history = found
            for epoch in history[1:]:  # schedule and stop depend on the losses alone
                schedule.step(epoch.val_loss)
        else:
            best, history = (
                _copy(network),
                [Epoch(None, _validate(network, val, loss, settings), settings.rate)],
            )
            _require_finite(history[0], 0)
        while len(history) <= settings.epochs and len(history) - 1 - _best(history) < settings.stop:
            number = len(history)
            rate = float(optimiser.param_groups[0]["lr"])
            train_loss = _train(network, train, optimiser, loss, settings, number)
            epoch = Epoch(train_loss, _validate(network, val, loss, settings), rate)
            _require_finite(epoch, number)
            history.append(epoch)
            schedule.step(epoch.val_loss)
            if _best(history) == number:
                best = _copy(network)
            kept.save(network, best, optimiser, history)
            said = f"epoch {number}: loss {train_loss:.4f}, validation {epoch.val_loss:.4f}"
            progress("fine-tune", said, number / settings.epochs)
    network.load_state_dict(best)
    network.eval()
    return FineTuned(history, _best(history))


def _train(
    network: Network,
    examples: Examples,
    optimiser: torch.optim.Optimizer,
    loss: nn.Module,
    settings: FineTuning,
    epoch: int,
) -> float:
    """Run one epoch, and return the mean loss of its images."""
    torch.manual_seed(int(np.random.default_rng([settings.seed, epoch]).integers(2**31)))  # of dropped paths
    order = np.random.default_rng([settings.seed, epoch, 1]).permutation(len(examples.pictures))
    network.train()
    total = 0.0
    for pixels, classes in examples.batches(order, settings.batch):
        optimiser.zero_grad(set_to_none=True)
        value: Tensor = loss(network(pixels), classes)
        value.backward()
        optimiser.step()
        total += float(value.detach()) * len(classes)
    return total / len(order)


def _validate(network: Network, examples: Examples, loss: nn.Module, settings: FineTuning) -> float:
    network.eval()
    with torch.inference_mode():
        order = np.arange(len(examples.pictures))
        logits = torch.cat([network(pixels) for pixels, _ in examples.batches(order, settings.batch)])
        return float(loss(logits, torch.from_numpy(examples.classes)))


def _weights(classes: NDArray[np.int64], network: Network, settings: FineTuning) -> Tensor | None:
    """Return weights that let every class count alike, as scikit-learn's ``balanced``."""
    if settings.class_weights == "none":
        return None
    counts = np.bincount(classes, minlength=network.classifier.out_features)
    return torch.from_numpy((len(classes) / (len(counts) * counts)).astype(np.float32))


def _best(history: Sequence[Epoch]) -> int:
    return int(np.argmin([epoch.val_loss for epoch in history]))


def _copy(network: Network) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in network.state_dict().items()}


def _require_finite(epoch: Epoch, number: int) -> None:
    if not np.isfinite([epoch.val_loss, epoch.train_loss or 0.0]).all():
        raise PromptRayError(
            "adapt.diverged",
            "the loss of the training is no longer a finite number",
            artefact=f"epoch {number}",
            cure="take a smaller --learning-rate, and another folder with -o: features.safetensors may be "
            "copied there",
        )


def _run_hash(network: Network, train: Examples, val: Examples, settings: FineTuning) -> str:
    sets = [[list(part.hashes), part.classes.tolist()] for part in (train, val)]
    facts = json.dumps([weights_sha256(network.state_dict()), asdict(settings), sets])
    return hashlib.sha256(facts.encode()).hexdigest()


@contextmanager
def _deterministic() -> Iterator[None]:
    """Let torch refuse whatever would give other bits on a second run; restored afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
