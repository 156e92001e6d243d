"""The scorer as what is measured: real files through its public calls, images by number."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptray.calibrate.bench.report import ImageFacts
from promptray.calibrate.bench.scenarios import Clock
from promptray.calibrate.evaluation_report import RefusedImage
from promptray.runtime.errors import PromptRayError
from promptray.runtime.result import Refused, Result

if TYPE_CHECKING:
    from promptray.runtime.door import Source
    from promptray.runtime.scorer import Scorer

_WARM_ROUNDS = 2
#: Codes of what is wrong with an image, not with the model.
OF_THE_IMAGE = ("image.", "dicom.")


class ScorerSystem:
    """Images that can be scored, and the scorer (see :class:`promptray.calibrate.bench.scenarios.System`).

    Parameters
    ----------
    scorer : Scorer
    sources : sequence of (int, source)
        Each with its number.
    declared : mapping
        What is declared of every image.
    """

    def __init__(
        self, scorer: Scorer, sources: Sequence[tuple[int, Source]], declared: Mapping[str, Any]
    ) -> None:
        self._scorer, self._sources, self._declared = scorer, sources, declared
        self.images = len(sources)

    def one(self, image: int) -> Mapping[str, float]:
        """Score one image; milliseconds of its stages, without their sum."""
        number, source = self._sources[image]
        result = self._scorer.score(source, name=f"image {number}", **self._declared)
        return stages_of(result)

    def several(self, images: Iterable[int]) -> int:
        """Score images, the next ones being read meanwhile."""
        asked: list[int] = []

        def sources() -> Iterator[Source]:
            for image in images:
                number, source = self._sources[image]
                asked.append(number)
                yield source

        scored = 0
        for outcome in self._scorer.score_many(sources(), **self._declared):
            if isinstance(outcome, Refused):
                raise _unnamed(outcome.error, asked[scored])
            scored += 1
        return scored


def stages_of(result: Result) -> dict[str, float]:
    """Return the milliseconds of a result's stages, without their sum."""
    return {name: value for name, value in result.timing.items() if name != "total"}


@dataclass(frozen=True)
class WarmUp:
    """What scoring every image twice, before anything is measured, told.

    Attributes
    ----------
    system : ScorerSystem
        Of the images that can be scored.
    first : Result
        The first image's: it says what runs.
    images : list of ImageFacts
    refused : list of RefusedImage
    scored : int
    seconds_each : float
        Of the second round, mean.
    """

    system: ScorerSystem
    first: Result
    images: list[ImageFacts]
    refused: list[RefusedImage]
    scored: int
    seconds_each: float


def warm_up(
    scorer: Scorer,
    files: Sequence[Path],
    declared: Mapping[str, Any],
    clock: Clock,
) -> WarmUp:
    """Score every image twice: kernels are chosen, pages mapped, files cached, and refused images found.

    Raises
    ------
    PromptRayError
        ``bench.images`` where none can be scored; ``score.*`` and ``backend.*``.
    """
    good: list[tuple[int, Source]] = []
    facts, refused = [], {}
    first: Result | None = None
    for number, file in enumerate(files, 1):
        try:
            result = scorer.score(file, name=f"image {number}", **declared)
        except PromptRayError as error:
            if not error.code.startswith(OF_THE_IMAGE):
                raise _unnamed(error, number) from None
            refused[f"image {number}"] = error.code
            continue
        first = first or result
        good.append((number, file))
        facts.append(_facts(number, file, result))
    if first is None:
        raise PromptRayError(
            "bench.images",
            "no image can be scored, so nothing can be measured",
            found=", ".join(f"{place}: {code}" for place, code in list(refused.items())[:8]),
            cure="run `promptray score` on them, which says why; PNG and JPEG need --modality",
        )
    system = ScorerSystem(scorer, good, declared)
    start = clock.now()
    for _ in range(_WARM_ROUNDS - 1):
        for image in range(system.images):
            system.one(image)
    each = (clock.now() - start) / ((_WARM_ROUNDS - 1) * system.images)
    return WarmUp(system, first, facts, RefusedImage.each(refused), _WARM_ROUNDS * len(good), each)


def _facts(number: int, file: Path, result: Result) -> ImageFacts:
    source = result.document.source
    return ImageFacts(
        number=number, kind=source.kind, rows=source.rows, columns=source.columns,
        transfer_syntax=source.transfer_syntax, bytes=os.stat(file).st_size,
    )  # fmt: skip


def _unnamed(error: PromptRayError, number: int) -> PromptRayError:
    """Return an error with the image's number in place of its name."""
    fields = {**error.to_json(), "artefact": f"image {number}"}
    return type(error)(str(fields.pop("code")), str(fields.pop("message")), **fields)
