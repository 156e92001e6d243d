"""What the teacher says of every view of every image, computed once and kept in files that outlive a kill.

The store of `promptray.calibrate.adapt.features` keeps one vector an image, all in memory and in one file.
A tower's tokens are some hundred times as much, so here a file holds some images of one view, and is mapped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from promptray.calibrate.adapt.whole import replace_whole
from promptray.calibrate.distil.images import DistilImages
from promptray.calibrate.distil.settings import Augmentation
from promptray.calibrate.distil.teacher import Teacher
from promptray.calibrate.distil.views import Levels, mixed, view
from promptray.runtime.errors import BuildError

#: Images of one file.
_IMAGES = 16


class Targets:
    """Encoded tensors and logits of views, by row.

    Parameters
    ----------
    folder : Path
        Made if it is not there; what it holds is not computed again.
    teacher : Teacher
    images : DistilImages
    augment : Augmentation
    seed : int
    pixels : callable
        Views -> pixels.
    learned : sequence of int
        Rows that views may be mixed with: none that only watches.
    """

    def __init__(
        self,
        folder: Path,
        teacher: Teacher,
        images: DistilImages,
        augment: Augmentation,
        seed: int,
        pixels: Callable[[Sequence[Levels]], Tensor],
        learned: Sequence[int] = (),
    ) -> None:
        self._learned = list(learned) if augment.mix else []
        facts = [teacher.sha256, images.facts.sha256, msgspec.to_builtins(augment), seed, self._learned]
        self.sha256 = hashlib.sha256(msgspec.json.encode(facts)).hexdigest()
        self._folder = folder / f"teacher-{self.sha256[:32]}"
        self._teacher, self._images, self._augment, self._seed = teacher, images, augment, seed
        self._pixels = pixels
        self._open: dict[Path, Any] = {}

    def views(self, rows: Sequence[int], numbers: Sequence[int]) -> Tensor:
        """Return the pixels of views of images: the teacher's answer is to these."""
        return self._pixels([self._view(row, number) for row, number in zip(rows, numbers, strict=True)])

    def _view(self, row: int, number: int) -> Levels:
        own = self._single(row, number)
        rng = np.random.default_rng([self._seed, row, number, 1])
        if number == 0 or not self._learned or rng.random() >= self._augment.mix:
            return own
        other = self._learned[int(rng.integers(len(self._learned)))]
        return mixed(own, self._single(other, number), rng.random())

    def _single(self, row: int, number: int) -> Levels:
        return view(self._images.pictures[row], self._augment, number, (self._seed, row))

    def compute(self, device: str, progress: Callable[[int, int], None]) -> None:
        """Compute what is not there.

        Raises
        ------
        BuildError
            ``score.not-finite`` where the teacher gives NaN or infinity.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        starts = range(0, len(self._images), _IMAGES)
        files = [(number, start) for number in range(self._augment.views) for start in starts]
        tower = self._teacher.tower.to(device)
        for done, (number, start) in enumerate(files, start=1):
            path = self._file(number, start)
            if not path.exists():
                rows = range(start, min(start + _IMAGES, len(self._images)))
                replace_whole(path, safetensors.torch.save(self._answer(rows, number, device)))
            progress(done, len(files))
        tower.to("cpu")

    def _answer(self, rows: Sequence[int], number: int, device: str) -> dict[str, Tensor]:
        found: dict[str, list[Tensor]] = {}
        with torch.inference_mode():
            for row in rows:  # one by one: an answer does not depend on what else is asked
                encoded = self._teacher.encode(self.views([row], [number]).to(device))
                outputs = self._teacher.outputs(encoded)
                named = {f"encoded.{n}": each for n, each in enumerate(encoded)}
                named |= {
                    f"logits.{name}": head.to(device)(outputs) for name, head in self._teacher.heads.items()
                }
                for name, each in named.items():
                    found.setdefault(name, []).append(each.float().cpu())
        answer = {name: torch.cat(parts).contiguous() for name, parts in found.items()}
        for name, each in answer.items():
            if not bool(torch.isfinite(each).all()):
                raise BuildError(
                    "score.not-finite",
                    "the teacher gives NaN or infinity",
                    artefact=name,
                    expected="finite numbers",
                    found=f"among images {rows[0] + 1} to {rows[-1] + 1}, view {number}",
                    cure="check the checkpoint with `promptray build` without `distil`",
                )
        return answer

    def rows(self, name: str, rows: Sequence[int], numbers: Sequence[int]) -> Tensor:
        """Return a tensor of views: ``encoded.N`` or ``logits.HEAD``, one row for each."""
        found = []
        for row, number in zip(rows, numbers, strict=True):
            start = row - row % _IMAGES
            file = self._file(number, start)
            try:
                if file not in self._open:
                    self._open[file] = safe_open(file, framework="pt").__enter__()
                found.append(self._open[file].get_slice(name)[row - start : row - start + 1])
            except (SafetensorError, OSError, IndexError) as error:
                raise BuildError(
                    "distil.state",
                    f"the teacher's answers cannot be read ({type(error).__name__})",
                    artefact=f"{file.parent.name}/{file.name}",
                    cure="delete the file; it is computed again",
                ) from None
        return torch.cat(found)

    def _file(self, number: int, start: int) -> Path:
        return self._folder / f"view{number:02}-{start:08}.safetensors"
