"""The training of a smaller text side: one wording at a time, as the runtime encodes them.

=======  ==============================================================================================
feature  mean squared error of every tensor that the bank stores over its variance, mean of the tensors
logit    mean squared difference of logits, through the teacher's own head on real images, over the mean
         variance of a wording's logits over these images
=======  ==============================================================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from promptray.calibrate.distil.fit import Run
from promptray.calibrate.distil.quantised import Simulation
from promptray.calibrate.distil.text_settings import TextDistil
from promptray.calibrate.distil.text_student import TextStudent, call
from promptray.calibrate.distil.text_targets import LOGITS, TextTargets
from promptray.export.families.base import weights_sha256
from promptray.runtime.prompts import ROWS

#: Below this share of a tensor's mean square it does not depend on the wording, and is not learned.
_CONSTANT = 1e-9


@dataclass(frozen=True, eq=False)
class TextLesson:
    """All that a training rests on but its settings.

    Attributes
    ----------
    student : TextStudent
    targets : TextTargets
        Computed.
    scale : mapping of str to float
        Variance of each of the bank's tensors that is learned, and of the logits.
    train, val : int arrays
        Rows that are learned from, and those that watch.
    """

    student: TextStudent
    targets: TextTargets
    scale: Mapping[str, float]
    train: NDArray[np.intp]
    val: NDArray[np.intp]


def scale_of(targets: TextTargets, rows: Sequence[int]) -> dict[str, float]:
    """Measure the teacher's answers to some wordings: what losses are in units of.

    The variance of a tensor is about the mean of each of its numbers, over wordings and rows; that of logits
    is a wording's over the images, mean of the wordings.
    """
    sums: dict[str, list[Tensor]] = {}
    spread = 0.0
    for row in rows:
        answer = targets.row(row)
        spread += float(answer[LOGITS].double().var(unbiased=False)) / len(rows)
        for facts in targets.side.outputs:
            values = answer[facts.name].double()
            values = values.movedim(facts.dims.index(ROWS), 0) if ROWS in facts.dims else values[None]
            parts = [torch.tensor(float(len(values))), values.sum(dim=0), values.square().sum(dim=0)]
            before = sums.get(facts.name, [torch.zeros(()) for _ in parts])
            sums[facts.name] = [one + other for one, other in zip(before, parts, strict=True)]
    scale = {LOGITS: max(spread, 1e-12)}
    for name, (count, total, squares) in sums.items():
        variance = float((squares / count - (total / count).square()).mean())
        if variance > _CONSTANT * float((squares / count).mean()):
            scale[name] = variance
    return scale


class TextRun(Run):
    """A student in the place of a text encoder's blocks."""

    def __init__(self, lesson: TextLesson, settings: TextDistil) -> None:
        super().__init__(lesson.student.blocks.to(settings.device), lesson, settings)

    def teachers(self) -> Sequence[nn.Module]:
        """Return the head, and the text side that the blocks are a part of."""
        return self.lesson.targets.head.module, self.lesson.student.side.module

    def sha256(self) -> str:
        """Return a hash of the first weights, the teacher's answers and the settings."""
        facts = [
            weights_sha256({name: each.cpu() for name, each in self.student.state_dict().items()}),
            self.lesson.targets.sha256,
            msgspec.to_builtins(self.settings),
            self.lesson.train.tolist(),
            self.lesson.val.tolist(),
        ]
        return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()

    def terms(
        self, rows: Sequence[int], views: Sequence[int], simulation: Simulation | None
    ) -> dict[str, Tensor]:
        """Return the weighted losses of some wordings by name; each has one view, and none is simulated."""
        found: dict[str, list[Tensor]] = {}
        for row in rows:
            for name, value in self._of_one(row).items():
                found.setdefault(name, []).append(value)
        return {name: torch.stack(values).mean() for name, values in found.items()}

    def _of_one(self, row: int) -> dict[str, Tensor]:
        lesson, weights, device = self.lesson, self.settings.losses, self.settings.device
        theirs = lesson.targets.row(row)
        ours = call(lesson.student.side, lesson.targets.prompts[row].arrays, device)
        found = {}

        def share(name: str, values: Tensor) -> Tensor:
            return nn.functional.mse_loss(values, theirs[name].to(device)) / lesson.scale[name]

        if weights.feature:
            shares = [share(name, values) for name, values in ours.items() if name in lesson.scale]
            found["feature"] = weights.feature * torch.stack(shares).mean()
        if weights.logit:
            found["logit"] = weights.logit * share(LOGITS, lesson.targets.head.logits(ours))
        return found
