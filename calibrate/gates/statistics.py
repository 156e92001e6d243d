"""Every number of the gates that has a bootstrap interval: its value, its draws, and its noise floor."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.auroc import auroc
from promptray.calibrate.bootstrap import patient_draws
from promptray.calibrate.evaluation_report import Estimate, estimate
from promptray.calibrate.gates.data import Floats, GateData, ModelScores
from promptray.calibrate.gates.map_agreement import map_correlation, top_overlap
from promptray.calibrate.ranking import Ranking, once
from promptray.calibrate.spearman import spearman

Draws = Callable[[NDArray[np.floating]], Floats]
"""Weights (n, d) of the images -> the statistic (d,) of each draw, NaN where it is not defined."""


@dataclass(eq=False)
class Statistic:
    """One number of one finding.

    Attributes
    ----------
    of : callable
        The number between original and candidate, for weights of the images.
    noise : float, optional
        The number between two builds of the original.
    images : int
        n, of which it may look at some only.
    """

    of: Draws
    noise: float | None
    images: int
    draws: list[Floats] = field(default_factory=list)

    def value(self) -> float:
        """Return the number over all images."""
        return float(self.of(once(self.images))[0])

    def estimate(self, confidence: float) -> Estimate | None:
        """Return the number with its interval; None where it is not defined."""
        value = self.value()
        if np.isnan(value):
            return None
        return estimate(np.array([value]), self.draws, confidence)


@dataclass(eq=False)
class FindingStatistics:
    """The statistics of one finding; None for those that cannot be had.

    `labelled` (n,) says which m images have a label; `truth` (m,) and `labelled_patients` (m,) are theirs.
    """

    key: str
    spread: float
    spearman: Statistic
    mean_delta: Statistic
    auroc_loss: Statistic | None
    map_correlation: Statistic | None
    map_overlap: Statistic | None
    labelled: NDArray[np.bool_]
    truth: NDArray[np.bool_]
    labelled_patients: NDArray[np.int64]

    def all(self) -> list[Statistic]:
        """Return those that there are."""
        found = (
            self.spearman,
            self.mean_delta,
            self.auroc_loss,
            self.map_correlation,
            self.map_overlap,
        )
        return [each for each in found if each is not None]


def finding_statistics(data: GateData, number: int) -> FindingStatistics:
    """Prepare the statistics of one finding, without draws."""
    original = np.asarray(data.original.logits, np.float64)[:, number]
    spread = float(original.std())
    labels = np.full(data.images, np.nan) if data.labels is None else np.asarray(data.labels)[:, number]
    labelled = ~np.isnan(labels)
    truth = labels[labelled] == 1

    def against(make: Callable[[ModelScores], Draws]) -> Statistic:
        noise = np.nan if data.again is None else float(make(data.again)(once(data.images))[0])
        return Statistic(make(data.candidate), None if np.isnan(noise) else noise, data.images)

    def logits(model: ModelScores) -> Floats:
        return np.asarray(model.logits, np.float64)[:, number]

    def ranks(model: ModelScores) -> Draws:
        sides = Ranking(original), Ranking(logits(model))
        return lambda weights: spearman(*sides, weights)

    def delta(model: ModelScores) -> Draws:
        return _mean(np.abs(logits(model) - original) / (spread or np.nan))

    def loss(model: ModelScores) -> Draws:
        sides = Ranking(original[labelled]), Ranking(logits(model)[labelled])
        return lambda weights: np.subtract(*(auroc(truth, side, weights[labelled]) for side in sides))

    return FindingStatistics(
        key=data.findings[number],
        spread=spread,
        spearman=against(ranks),
        mean_delta=against(delta),
        auroc_loss=against(loss) if truth.any() and not truth.all() else None,
        map_correlation=_maps(data, number, map_correlation),
        map_overlap=_maps(data, number, top_overlap),
        labelled=labelled,
        truth=truth,
        labelled_patients=data.patient_of[labelled],
    )


def _maps(data: GateData, number: int, agreement: Callable[..., Floats]) -> Statistic | None:
    original, candidate = data.original.maps, data.candidate.maps
    if original is None or candidate is None:
        return None
    again = None if data.again is None else data.again.maps
    noise = None if again is None else float(agreement(original[:, number], again[:, number]).mean())
    of = _mean(agreement(original[:, number], candidate[:, number]))
    return Statistic(of, noise, data.images)


def _mean(values: Floats) -> Draws:
    def of(weights: NDArray[np.floating]) -> Floats:
        mean: Floats = values @ weights.astype(np.float64) / weights.sum(0, dtype=np.float64)
        return mean

    return of


def draw(statistics: Iterable[Statistic], patients: NDArray[np.int64], *, draws: int, seed: int) -> None:
    """Give every statistic its draws of patients, all of them the same ones."""
    found = list(statistics)
    for weights in patient_draws(patients, draws=draws, seed=seed):
        for each in found:
            each.draws.append(each.of(weights))
