"""Score the test part with the bundles of the stages: what is measured is what will be deployed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.adapt.data import Data
from promptray.calibrate.adapt.measures import LEAST_CLASS_UNITS, Drawn, Measured, difference, measure
from promptray.calibrate.adapt.progress import Progress
from promptray.calibrate.adapt.report import Difference, FineTuneFacts, ProbeFacts, StageName, StageReport
from promptray.calibrate.adapt.source import groups_of
from promptray.calibrate.adapt.stages import Workshop, origin_of
from promptray.calibrate.evaluation_report import Estimate, RefusedImage, estimate
from promptray.calibrate.score_images import score_images
from promptray.calibrate.tables.csv_file import TableError
from promptray.calibrate.tables.scores import ScoreTable
from promptray.runtime.backends import BackendFacts
from promptray.runtime.bundle import Bundle
from promptray.runtime.scorer import Scorer

CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class ScoredStage:
    """A stage's bundle and what it gave the images of the test part.

    Attributes
    ----------
    name : str
    bundle : Bundle
    backend : BackendFacts
    scores : ScoreTable
        A row for each test image.
    """

    name: StageName
    bundle: Bundle
    backend: BackendFacts
    scores: ScoreTable

    @property
    def shares(self) -> NDArray[np.float64]:
        """The softmax (n, K); a row of NaN for an image that was refused."""
        values = self.scores.values
        return values.get("softmax", values["logit"])  # no softmax: all were refused, so that logits are NaN


@dataclass(frozen=True, eq=False)
class SideBySide:
    """The stages on the same images.

    Attributes
    ----------
    stages : list of ScoredStage
    measured : dict of str to Measured
        By stage.
    units : int
        Independent units that were measured on.
    """

    stages: list[ScoredStage]
    measured: dict[str, Measured]
    units: int

    def reports(self, trained: Mapping[str, ProbeFacts | FineTuneFacts]) -> list[StageReport]:
        """Return what the report says of each stage; `trained` says how it was made."""
        return [self._report(stage, trained.get(stage.name)) for stage in self.stages]

    def _report(self, stage: ScoredStage, facts: ProbeFacts | FineTuneFacts | None) -> StageReport:
        bundle, checkpoint = origin_of(stage.bundle, f"{stage.name}.bundle")
        return StageReport(
            name=stage.name,
            bundle=bundle,
            checkpoint=checkpoint,
            backend=stage.backend,
            refused=RefusedImage.each(stage.scores.refused),
            numbers=_estimates(self.measured[stage.name].numbers),
            confusion=self.measured[stage.name].confusion,
            probe=facts if isinstance(facts, ProbeFacts) else None,
            fine_tune=facts if isinstance(facts, FineTuneFacts) else None,
        )

    def notes(self) -> list[str]:
        """Say which classes are in too few units."""
        few = self.measured[self.stages[0].name].few
        if not few:
            return []
        named = ", ".join(f"{owner} ({count})" for owner, count in few.items())
        return [
            f"In the test part fewer than {LEAST_CLASS_UNITS} units have, or lack, {named}: their own "
            "numbers have no interval, and the means that they are in are uncertain."
        ]

    def differences(self) -> list[Difference]:
        """Return what each later stage has more than each earlier one."""
        pairs = combinations([stage.name for stage in self.stages], 2)
        return [Difference(earlier=a, later=b, numbers=_estimates(self._more(a, b))) for a, b in pairs]

    def _more(self, earlier: str, later: str) -> dict[str, Drawn]:
        names = self.measured[later].numbers
        found = {
            name: difference(self.measured[later], self.measured[earlier], name)
            for name in names
        }  # fmt: skip
        return {name: drawn for name, drawn in found.items() if drawn is not None}


def score_stages(
    shop: Workshop, data: Data, stages: Sequence[StageName], *, draws: int, seed: int
) -> SideBySide:
    """Score the test part with every bundle, and measure where all of them have scores.

    Raises
    ------
    TableError
        ``adapt.images`` if no image has a score of every stage.
    """
    rows = data.rows("test")
    images = [data.cases.images[row] for row in rows]
    scored = []
    for stage in stages:
        said = partial(_scored, shop.progress, stage)
        with Scorer.open(shop.bundle(stage), site=None) as scorer:
            table = score_images(scorer, images, shop.images, modality=shop.modality, progress=said)
            scored.append(ScoredStage(stage, scorer.bundle, scorer.backend, table))
    all_have = ~np.any([np.isnan(stage.shares).any(1) for stage in scored], axis=0)
    if not all_have.any():
        raise TableError(
            "adapt.images",
            "no image of the test part has a score",
            artefact=data.cases.labels.table,
            found=", ".join(sorted({code for stage in scored for code in stage.scores.refused.values()})),
            cure="`promptray score` says more of each",
        )
    kept = rows[all_have]
    measured: dict[str, Measured] = {
        stage.name: measure(
            data.cases.keys,
            data.cases.classes[kept],
            stage.shares[all_have],
            data.units[kept],
            ordinal=shop.source.ordinal,
            groups=groups_of(shop.source),
            draws=draws,
            seed=seed,
        )
        for stage in scored
    }
    return SideBySide(scored, measured, len(np.unique(data.units[kept])))


def notes_of_stages(stages: Sequence[StageReport]) -> list[str]:
    """Return what a reader must know of how the stages went."""
    notes = []
    for stage in stages:
        if stage.probe and not stage.probe.folds:
            notes.append(
                "Probe: too few units of the train part have a class for some to be held out, so the "
                "penalty was not chosen but is a default."
            )
        if stage.probe and not stage.probe.converged:
            notes.append("Probe: the fit did not converge; its weights are those of the last iteration.")
        if stage.fine_tune and stage.fine_tune.best == 0:
            notes.append(
                "Fine-tuning did not lower the validation loss: its bundle is the network that it began with."
            )
        if stage.refused:
            notes.append(
                f"{stage.name}: {len(stage.refused)} test images got no score; all stages are measured "
                "without them."
            )
    return notes


def _scored(progress: Progress, stage: str, _: str, message: str, part: float) -> None:
    progress(stage, f"scored {message}", part)


def _estimates(numbers: Mapping[str, Drawn]) -> dict[str, Estimate]:
    return {
        name: estimate(np.array([number.value]), [number.draws], CONFIDENCE)
        for name, number in numbers.items()
    }
