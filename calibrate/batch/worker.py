"""What a worker of a batch does: it holds one scorer and scores parts, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptray.calibrate.batch.attempts import MOST, Attempts, Stopped
from promptray.calibrate.batch.parts import Part, row, write_part
from promptray.calibrate.batch.run import RunFacts, ScorerFacts
from promptray.runtime.errors import ScoringError
from promptray.runtime.result import Refused, Result
from promptray.runtime.scorer import Scorer


@dataclass(frozen=True)
class Work:
    """All that a worker is told.

    Attributes
    ----------
    run : RunFacts
    folder : Path
        Where results are written: absolute, and the same for every worker.
    base : Path
        The folder that relative paths of images are of.
    open_scorer : callable
        Makes the worker's own scorer.
    """

    run: RunFacts
    folder: Path
    base: Path
    open_scorer: Callable[[], Scorer]

    @property
    def declared(self) -> dict[str, Any]:
        """What is declared of every image."""
        stated = {"modality": self.run.modality, "frame": self.run.frame}
        return {name: value for name, value in stated.items() if value is not None}


class Worker:
    """Scores parts. One process makes one."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._scorer = work.open_scorer()
        here = ScorerFacts.of(self._scorer, reproducible=work.run.reproducible)
        if here != work.run.scorer:
            raise Stopped("a worker would give other scores than the run was begun with")

    def score(self, part: Part) -> None:
        """Score the images of a part and write their results, unless that was done before."""
        if (self._work.folder / part.file).exists():
            return
        with Attempts(self._work.folder, part) as attempts:
            outcomes = self._many(part) if attempts.first else self._one_by_one(part, attempts)
            bundle = self._scorer.bundle.hash
            rows = [
                row(part.first + number, image, bundle, outcome)
                for number, (image, outcome) in enumerate(zip(part.images, outcomes, strict=True))
            ]
            write_part(self._work.folder, part, rows, self._work.run)

    def close(self) -> None:
        """Give the scorer's memory back."""
        self._scorer.close()

    def _many(self, part: Part) -> Iterator[Result | Refused]:
        """Read the next image while one is scored."""
        places = [self._work.base / image for image in part.images]
        return self._scorer.score_many(places, **self._work.declared)

    def _one_by_one(self, part: Part, attempts: Attempts) -> Iterator[Result | Refused]:
        """An earlier attempt died: go on so that the image that it died on is known."""
        for index, image in enumerate(part.images, part.first):
            if not attempts.may_try(index):
                yield Refused(_deadly(), image.name)
                continue
            yield next(iter(self._scorer.score_many([self._work.base / image], **self._work.declared)))
            attempts.done(index)


def _deadly() -> ScoringError:
    return ScoringError(
        "batch.worker-died",
        "every process that scored this image died",
        found=f"{MOST} deaths of a worker that scored nothing else",
        cure="score it alone with `promptray score`, and report it",
    )
