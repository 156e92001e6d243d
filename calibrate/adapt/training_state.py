"""What training needs to go on after a kill: one safetensors file, written whole after every epoch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from promptray.calibrate.adapt.whole import replace_whole
from promptray.runtime.errors import PromptRayError

_NETWORK, _BEST, _ADAM = "network.", "best.", "adam."


@dataclass
class Epoch:
    """Mean losses of one epoch, and its learning rate. Epoch 0 is the start: nothing was trained."""

    train_loss: float | None
    val_loss: float
    rate: float


E = TypeVar("E")


class TrainingState(Generic[E]):
    """A file with network, best network, optimiser and history.

    Parameters
    ----------
    path : Path
    run : str
        Hash of everything that the training depends on; the file of another run is refused.
    epoch : type
        Dataclass of what is kept of an epoch: texts, numbers and mappings of them.
    code : str
        Of what is refused.
    """

    def __init__(self, path: Path, run: str, epoch: type[E], code: str = "adapt.state") -> None:
        self._path = path
        self._run = run
        self._epoch = epoch
        self._code = code

    def save(
        self,
        network: nn.Module,
        best: Mapping[str, Tensor],
        optimiser: torch.optim.Optimizer,
        history: list[E],
    ) -> None:
        """Replace the file, whole or not at all."""
        tensors = {f"{_NETWORK}{key}": value for key, value in network.state_dict().items()}
        tensors.update({f"{_BEST}{key}": value for key, value in best.items()})
        for number, facts in optimiser.state_dict()["state"].items():
            tensors.update({f"{_ADAM}{number}.{key}": torch.as_tensor(value) for key, value in facts.items()})
        texts = {"run": self._run, "history": json.dumps([vars(epoch) for epoch in history])}
        # Moments of a convolution may lie channels-last in memory; a file has one order only.
        content = safetensors.torch.save({key: value.contiguous() for key, value in tensors.items()}, texts)
        replace_whole(self._path, content)

    def load(
        self, network: nn.Module, optimiser: torch.optim.Optimizer
    ) -> tuple[dict[str, Tensor], list[E]] | None:
        """Put network and optimiser back, and return the best network and the history; None without a file.

        Raises
        ------
        PromptRayError
            `code` for a damaged file, or that of another run.
        """
        if not self._path.exists():
            return None
        try:
            with safe_open(self._path, framework="pt") as file:
                texts = file.metadata() or {}
                # safe_open is no mapping: its keys are a method only.
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            if texts["run"] != self._run:
                raise self._refused("it is of another run")
            network.load_state_dict(_after(_NETWORK, tensors))
            states: dict[int, dict[str, Tensor]] = {}
            for key, value in _after(_ADAM, tensors).items():
                number, _, name = key.partition(".")
                states.setdefault(int(number), {})[name] = value
            optimiser.load_state_dict({**optimiser.state_dict(), "state": states})
            return _after(_BEST, tensors), [self._epoch(**each) for each in json.loads(texts["history"])]
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise self._refused(f"it cannot be read ({type(error).__name__})") from None

    def remove(self) -> None:
        """Delete the file."""
        self._path.unlink(missing_ok=True)

    def _refused(self, why: str) -> PromptRayError:
        return PromptRayError(
            self._code,
            f"training cannot go on from its last epoch: {why}",
            artefact=self._path.name,
            cure="delete the file; training begins again",
        )


def _after(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
