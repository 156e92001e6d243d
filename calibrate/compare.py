"""Compare two sets of scores of the same images: ranks, differences, changed decisions, AUROC.

Bounds are judged as the gates judge (:mod:`promptray.calibrate.gates.verdict`): the same intervals, the same
least numbers of patients, the same operating point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.auroc import auroc
from promptray.calibrate.bootstrap import mean_draws, patient_draws
from promptray.calibrate.compare_bounds import Bounds, judge
from promptray.calibrate.comparison_report import (
    AurocPair,
    ComparisonReport,
    FindingComparison,
    Flips,
    SideRef,
)
from promptray.calibrate.evaluate import Settings
from promptray.calibrate.evaluation_report import Estimate, RefusedImage, estimate
from promptray.calibrate.gates.verdict import LEAST_PATIENTS
from promptray.calibrate.ranking import Ranking
from promptray.calibrate.rate import independent_decisions, rate_interval
from promptray.calibrate.reference_threshold import REFERENCE_RATE, reference_threshold
from promptray.calibrate.spearman import spearman
from promptray.calibrate.tables.csv_file import TableError
from promptray.calibrate.tables.labels import Labels, known
from promptray.calibrate.tables.scores import ScoreTable
from promptray.runtime.gate_limits import CONFIDENCE
from promptray.runtime.version import VERSION

Floats = NDArray[np.float64]

#: As the gates measure: each end of an interval is a one-sided 95 % limit.
SETTINGS = Settings(confidence=CONFIDENCE, min_patients=LEAST_PATIENTS)


@dataclass(eq=False)
class _Pair:
    """Both sides' scores of one finding, and what each draw makes of them."""

    key: str
    rows: NDArray[np.intp]
    values: tuple[Floats, Floats]
    rankings: tuple[Ranking, Ranking]
    patients: NDArray[np.int64]
    flags: tuple[Floats, Floats] | None
    threshold: float | None
    labelled: NDArray[np.intp]
    labelled_rankings: tuple[Ranking, Ranking]
    truth: NDArray[np.bool_]
    has_labels: bool
    reason: str | None
    spearman_draws: list[Floats] = field(default_factory=list)
    loss_draws: list[Floats] = field(default_factory=list)

    def draw(self, weights: NDArray[np.float32]) -> None:
        """Add a block of draws; `weights` are of all images in common."""
        own = weights[self.rows]
        self.spearman_draws.append(spearman(*self.rankings, own))
        if self.reason is None:
            first, second = self.aurocs(own[self.labelled])
            self.loss_draws.append(first - second)

    def aurocs(self, weights: NDArray[np.float32] | None = None) -> tuple[Floats, Floats]:
        """Return the AUROC of each side on the labelled images."""
        first, second = (auroc(self.truth, ranking, weights) for ranking in self.labelled_rankings)
        return first, second


def compare(
    first: ScoreTable,
    second: ScoreTable,
    *,
    labels: Labels | None = None,
    settings: Settings | None = None,
    reference_rate: float = REFERENCE_RATE,
    bounds: Bounds | None = None,
    hashes: tuple[str | None, str | None] = (None, None),
) -> ComparisonReport:
    """Compare the scores of the images and findings that both sides have.

    Parameters
    ----------
    first, second : ScoreTable
        The reference and what is compared with it. Images are named alike, findings are matched by key.
    labels : Labels, optional
        Whose images they are, and which findings they show: for clustered intervals and AUROC.
    settings : Settings, optional
        Uncertain labels, least number of patients, draws, confidence: by default `SETTINGS`.
    reference_rate : float
        Flips are counted at the thresholds that both sides have stored, else at those of the first side,
        else at the score of the first side that this share of the images reaches.
    bounds : Bounds, optional
    hashes : tuple of str or None
        Hashes of the bundles behind the sides.

    Raises
    ------
    TableError
        ``table.disjoint`` if no image or no finding is on both sides.
    """
    settings, bounds = settings or SETTINGS, bounds or Bounds()
    keys = [key for key in first.keys if key in second.keys]
    places = {name: row for row, name in enumerate(second.names)}
    common = [(row, places[name]) for row, name in enumerate(first.names) if name in places]
    ours, theirs = (np.array([pair[n] for pair in common], np.intp) for n in (0, 1))
    both = ours[:0]
    if keys and common:
        both = np.flatnonzero(~np.isnan(first.raw()[ours]).all(1) & ~np.isnan(second.raw()[theirs]).all(1))
    if not len(both):
        what = "image" if keys else "finding"
        raise TableError(
            "table.disjoint",
            f"the two sides have no scored {what} in common",
            artefact=f"{first.origin}, {second.origin}",
            expected=f"{what}s of the same name on both sides",
            found=f"{len(first.names)} and {len(second.names)} images, "
            f"{len(first.keys)} and {len(second.keys)} findings",
            cure=f"name {what}s alike on both sides",
        )
    ours, theirs = ours[both], theirs[both]
    known_rows = _label_rows([first.names[row] for row in ours], labels)
    patients = _patients(len(ours), known_rows, labels)
    pairs = [
        _pair(key, (first, ours), (second, theirs), patients, known_rows, labels, settings) for key in keys
    ]
    pairs = [pair for pair in pairs if len(pair.rows)]
    for weights in patient_draws(patients, draws=settings.draws, seed=settings.seed):
        for pair in pairs:
            pair.draw(weights)
    findings = [_finding(pair, settings, reference_rate) for pair in pairs]
    mean_loss = _mean_loss(pairs, settings)
    return ComparisonReport(
        schema="promptray-comparison",
        schema_version=1,
        software=f"promptray {VERSION}",
        first=_side(first, second, hashes[0], len(ours)),
        second=_side(second, first, hashes[1], len(ours)),
        images=len(ours),
        patients=len(np.unique(patients)),
        clustered_by="patient_id" if labels and labels.clustered else "image",
        draws=settings.draws,
        seed=settings.seed,
        confidence=settings.confidence,
        reference_rate=reference_rate,
        findings=findings,
        mean_auroc_loss=mean_loss,
        bounds=judge(bounds, findings, mean_loss),
    )


def _label_rows(names: Sequence[str], labels: Labels | None) -> NDArray[np.intp]:
    """Return each image's row in the labels, -1 where it has none."""
    row_of = {image.name: row for row, image in enumerate(labels.images)} if labels else {}
    return np.array([row_of.get(name, -1) for name in names], np.intp)


def _patients(images: int, rows: NDArray[np.intp], labels: Labels | None) -> NDArray[np.int64]:
    """Return whose image each is; one without labels is a patient of its own."""
    own = -1 - np.arange(images)
    return own if labels is None else np.where(rows < 0, own, labels.patients[rows])


def _pair(
    key: str,
    first: tuple[ScoreTable, NDArray[np.intp]],
    second: tuple[ScoreTable, NDArray[np.intp]],
    patients: NDArray[np.int64],
    label_rows: NDArray[np.intp],
    labels: Labels | None,
    settings: Settings,
) -> _Pair:
    sides = [table.raw()[at, table.keys.index(key)] for table, at in (first, second)]
    rows = np.flatnonzero(~np.isnan(sides[0]) & ~np.isnan(sides[1]))
    flags = [
        table.flags[at, table.keys.index(key)][rows]
        for table, at in (first, second)
        if table.flags is not None
    ]
    counted = np.zeros(len(rows), bool)
    present = np.zeros(len(rows), bool)
    if labels is not None and key in labels.keys:
        counts, shows = known(labels.values[:, labels.keys.index(key)], settings.uncertain)
        at = label_rows[rows]
        counted, present = counts[at] & (at >= 0), shows[at]
    labelled = np.flatnonzero(counted)
    truth = present[labelled]
    of = patients[rows][labelled]
    least = min(len(np.unique(of[truth])), len(np.unique(of[~truth])))
    reason, has_labels = None, labels is not None and key in labels.keys
    if not has_labels:
        reason = "no labels"
    elif least < settings.min_patients:
        reason = f"{least} patients with or without the finding, fewer than {settings.min_patients}"
    values = sides[0][rows], sides[1][rows]
    return _Pair(
        key=key,
        rows=rows,
        values=values,
        rankings=(Ranking(values[0]), Ranking(values[1])),
        patients=patients[rows],
        flags=(flags[0], flags[1]) if len(flags) == 2 and not np.isnan(flags).any() else None,
        threshold=first[0].thresholds.get(key),
        labelled=labelled,
        labelled_rankings=(Ranking(values[0][labelled]), Ranking(values[1][labelled])),
        truth=truth,
        has_labels=has_labels,
        reason=reason,
    )


def _finding(pair: _Pair, settings: Settings, reference_rate: float) -> FindingComparison:
    rank = spearman(*pair.rankings)
    delta = np.abs(pair.values[0] - pair.values[1])
    pair_auroc = None
    if pair.reason is None:
        first, second = pair.aurocs()
        loss = estimate(first - second, pair.loss_draws, settings.confidence)
        pair_auroc = AurocPair(first=float(first[0]), second=float(second[0]), loss=loss)
    return FindingComparison(
        key=pair.key,
        images=len(pair.rows),
        patients=len(np.unique(pair.patients)),
        spearman=None if np.isnan(rank[0]) else estimate(rank, pair.spearman_draws, settings.confidence),
        max_delta=float(delta.max()),
        mean_delta=float(delta.mean()),
        flips=_flips(pair, settings.confidence, reference_rate),
        labelled=pair.has_labels,
        auroc=pair_auroc,
        reason=pair.reason,
    )


def _flips(pair: _Pair, confidence: float, reference_rate: float) -> Flips:
    threshold = None if pair.flags else pair.threshold
    stored = pair.flags is not None or threshold is not None
    if pair.flags:
        sides = [flags > 0 for flags in pair.flags]
    else:
        if threshold is None:
            threshold = reference_threshold(pair.values[0], reference_rate)
        sides = [values >= threshold for values in pair.values]
    patients = independent_decisions(np.unique(pair.patients, return_inverse=True)[1].reshape(-1))
    flips = int((sides[0] != sides[1]).sum())
    rate, low, high = rate_interval(flips, len(pair.rows), patients, confidence)
    return Flips(
        flips=flips,
        decisions=len(pair.rows),
        patients=patients,
        rate=rate,
        low=low,
        high=high,
        threshold=threshold,
        chosen="stored" if stored else "reference operating point",
    )


def _mean_loss(pairs: Sequence[_Pair], settings: Settings) -> Estimate | None:
    """Return the mean loss over the findings that have one."""
    usable = [pair for pair in pairs if pair.reason is None]
    if not usable:
        return None
    losses = np.mean([np.subtract(*pair.aurocs()) for pair in usable], axis=0)
    draws = mean_draws([pair.loss_draws for pair in usable])
    return estimate(losses, [draws], settings.confidence)


def _side(table: ScoreTable, other: ScoreTable, sha256: str | None, common: int) -> SideRef:
    scored = int((~np.isnan(table.raw()).all(1)).sum())
    return SideRef(
        name=table.origin,
        sha256=sha256,
        head=table.head,
        images=scored,
        refused=RefusedImage.each(table.refused),
        only_here=[key for key in table.keys if key not in other.keys],
        images_only_here=scored - common,
    )
