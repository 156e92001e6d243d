"""Measure scores against labels: per finding, over findings, by source, with intervals over patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.auprc import average_precision, trapezoid_area
from promptray.calibrate.auroc import auroc
from promptray.calibrate.bootstrap import mean_draws, patient_draws
from promptray.calibrate.class_frequency import HEAD_PERCENTILE, TAIL_POSITIVES, Part, split_by_frequency
from promptray.calibrate.evaluate_classes import evaluate_classes
from promptray.calibrate.evaluation_report import (
    ClassesReport,
    F1Report,
    FindingReport,
    GroupReport,
    MeanReport,
    estimate,
)
from promptray.calibrate.f1 import best_f1, f1_of_flags
from promptray.calibrate.published import Published
from promptray.calibrate.ranking import Ranking
from promptray.calibrate.tables.labels import Labels, Uncertain, known

Floats = NDArray[np.float64]
Progress = Callable[[str, str, float], None]


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes
    ----------
    uncertain : {"ignore", "present", "absent"}
        What a label of -1 counts as.
    draws, seed, confidence : int, int, float
        Of the bootstrap intervals.
    min_patients : int
        A finding with fewer patients who have it, or fewer who do not, is inconclusive.
    tail_positives, head_percentile : int, float
        Of the split by frequency.
    alternatives, ordinal : bool
        The findings are alternatives; they are the steps of a scale, in their order.
    """

    uncertain: Uncertain = "ignore"
    draws: int = 1000
    seed: int = 0
    confidence: float = 0.95
    min_patients: int = 5
    tail_positives: int = TAIL_POSITIVES
    head_percentile: float = HEAD_PERCENTILE
    alternatives: bool = False
    ordinal: bool = False


@dataclass(eq=False)
class _Finding:
    """What is measured of one finding, and its value in each draw."""

    key: str
    rows: NDArray[np.intp]
    truth: NDArray[np.bool_]
    values: Floats
    flags: Floats | None
    patients: NDArray[np.int64]
    ranking: Ranking = field(init=False)
    auroc_draws: list[Floats] = field(default_factory=list)
    auprc_draws: list[Floats] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ranking = Ranking(self.values)

    def fault(self, least: int) -> str | None:
        """Say why there are too few patients to measure, if there are."""
        for what, patients in (
            ("the finding", self.positive_patients),
            ("no finding", self.negative_patients),
        ):
            if patients < least:
                return f"{patients} patients with {what}, fewer than {least}"
        return None

    @property
    def positive_patients(self) -> int:
        return len(np.unique(self.patients[self.truth]))

    @property
    def negative_patients(self) -> int:
        return len(np.unique(self.patients[~self.truth]))

    def draw(self, weights: NDArray[np.float32]) -> None:
        """Add a block of draws; `weights` are of the group's images."""
        own = weights[self.rows]
        self.auroc_draws.append(auroc(self.truth, self.ranking, own))
        self.auprc_draws.append(average_precision(self.truth, self.ranking, own))


def evaluate(
    labels: Labels,
    keys: Sequence[str],
    scores: Floats,
    flags: Floats | None = None,
    settings: Settings | None = None,
    *,
    published: Published | None = None,
    progress: Progress | None = None,
) -> list[GroupReport]:
    """Measure all images, then, where the labels name several sources, those of each.

    Parameters
    ----------
    labels : Labels
        Of n images.
    keys : sequence of str
        The k findings that are scored. Those without labels are not measured.
    scores : ndarray of float64, shape (n, k)
        Rows as in `labels`; a row of NaN for an image that was not scored.
    flags : ndarray of float64, shape (n, k), optional
        Decisions at stored thresholds: 1, 0, NaN where no threshold is stored.
    settings : Settings, optional
    published : Published, optional
        Published values to stand beside.
    progress : callable, optional
        Called with (stage, message, fraction).

    Returns
    -------
    list of GroupReport
    """
    settings = settings or Settings()
    scored = np.asarray(~np.isnan(scores).all(axis=1))
    groups: list[tuple[str | None, NDArray[np.bool_]]] = [(None, scored)]
    names = sorted(set(labels.sources or ()))
    if len(names) > 1:
        of = np.array(labels.sources)
        groups += [(name, scored & (of == name)) for name in names]
    parts: dict[str, Part] = {}
    reports = []
    for number, (source, chosen) in enumerate(groups):
        if progress:
            progress("measure", source or "all images", number / len(groups))
        rows = np.flatnonzero(chosen)
        images = _Images(
            labels.select(rows.tolist()), keys, scores[rows], None if flags is None else flags[rows]
        )
        findings = images.findings(settings.uncertain)
        # How frequent a finding is, is a fact of the whole set; a source keeps its parts.
        parts = parts or _parts(findings, settings)
        reports.append(_group(source, images, findings, parts, settings, published))
    return reports


@dataclass(frozen=True, eq=False)
class _Images:
    """The scored images of a group; arguments as of :func:`evaluate`."""

    labels: Labels
    keys: Sequence[str]
    scores: Floats
    flags: Floats | None

    @property
    def columns(self) -> list[tuple[int, int]]:
        """Where each finding that has labels is among the scores and among the labels."""
        own = self.labels.keys
        return [(n, own.index(key)) for n, key in enumerate(self.keys) if key in own]

    def findings(self, uncertain: Uncertain) -> list[_Finding]:
        """Return each finding with the images that count for it."""
        counts, present = known(self.labels.values, uncertain)
        found = []
        for scored, labelled in self.columns:
            rows = np.flatnonzero(counts[:, labelled] & ~np.isnan(self.scores[:, scored]))
            found.append(
                _Finding(
                    key=self.keys[scored],
                    rows=rows,
                    truth=present[rows, labelled],
                    values=self.scores[rows, scored],
                    flags=None if self.flags is None else self.flags[rows, scored],
                    patients=self.labels.patients[rows],
                )
            )
        return found

    def classes(self, settings: Settings) -> ClassesReport | None:
        """Return what the findings say as alternatives, where they are."""
        if not (settings.alternatives or settings.ordinal) or len(self.columns) < 2:
            return None
        return evaluate_classes(
            [self.keys[scored] for scored, _ in self.columns],
            self.labels.values[:, [labelled for _, labelled in self.columns]],
            self.scores[:, [scored for scored, _ in self.columns]],
            self.labels.patients,
            ordinal=settings.ordinal,
            draws=settings.draws,
            seed=settings.seed,
            confidence=settings.confidence,
        )


def _parts(findings: Sequence[_Finding], settings: Settings) -> dict[str, Part]:
    return split_by_frequency(
        {finding.key: int(finding.truth.sum()) for finding in findings},
        tail_positives=settings.tail_positives,
        head_percentile=settings.head_percentile,
    )


def _group(
    source: str | None,
    images: _Images,
    findings: Sequence[_Finding],
    parts: Mapping[str, Part],
    settings: Settings,
    published: Published | None,
) -> GroupReport:
    patients = images.labels.patients
    usable = [finding for finding in findings if finding.fault(settings.min_patients) is None]
    for weights in patient_draws(patients, draws=settings.draws, seed=settings.seed):
        for finding in usable:
            finding.draw(weights)
    return GroupReport(
        source=source,
        images=len(patients),
        patients=len(np.unique(patients)),
        findings=[
            _finding_report(finding, parts[finding.key], len(patients), settings, published)
            for finding in findings
        ],
        means=_means(usable, parts, settings, published),
        auprc_trapezoid_micro=_micro(usable),
        classes=images.classes(settings),
    )


def _finding_report(
    finding: _Finding, part: Part, images: int, settings: Settings, published: Published | None
) -> FindingReport:
    fault = finding.fault(settings.min_patients)
    truth, ranking = finding.truth, finding.ranking
    return FindingReport(
        key=finding.key,
        status="inconclusive" if fault else "evaluated",
        reason=fault,
        part=part,
        images=len(truth),
        positives=int(truth.sum()),
        unknown=images - len(truth),
        positive_patients=finding.positive_patients,
        negative_patients=finding.negative_patients,
        auroc=None if fault else estimate(auroc(truth, ranking), finding.auroc_draws, settings.confidence),
        auprc=None
        if fault
        else estimate(average_precision(truth, ranking), finding.auprc_draws, settings.confidence),
        auprc_trapezoid=None if fault else float(trapezoid_area(truth, ranking)[0]),
        f1=None if fault else _f1(finding),
        published_auroc=published.auroc.get(finding.key) if published else None,
    )


def _f1(finding: _Finding) -> F1Report:
    if finding.flags is not None and not np.isnan(finding.flags).any():
        stored = f1_of_flags(finding.truth, finding.flags > 0)
        return F1Report(
            value=stored.value,
            precision=stored.precision,
            recall=stored.recall,
            threshold=None,
            chosen="stored",
        )
    best, threshold = best_f1(finding.truth, finding.ranking)
    return F1Report(
        value=best.value,
        precision=best.precision,
        recall=best.recall,
        threshold=threshold,
        chosen="best on these images (optimistic)",
    )


def _means(
    usable: Sequence[_Finding], parts: Mapping[str, Part], settings: Settings, published: Published | None
) -> list[MeanReport]:
    everything = _mean("all", usable, settings, published)
    names: tuple[Part, ...] = ("head", "medium", "tail")
    by_part = [(name, [finding for finding in usable if parts[finding.key] == name]) for name in names]
    return [everything, *(_mean(name, some, settings, published) for name, some in by_part if some)]


def _mean(
    part: Part | Literal["all"],
    findings: Sequence[_Finding],
    settings: Settings,
    published: Published | None,
) -> MeanReport:
    """Average over findings."""
    keys = [finding.key for finding in findings]
    if not findings:
        return MeanReport(part=part, findings=keys, auroc=None, auprc=None, auprc_trapezoid=None)

    def mean(metric: Callable[[NDArray[np.bool_], Ranking], Floats]) -> Floats:
        found: Floats = np.mean([metric(finding.truth, finding.ranking) for finding in findings], axis=0)
        return found

    roc, prc = ([f.auroc_draws for f in findings], [f.auprc_draws for f in findings])
    return MeanReport(
        part=part,
        findings=keys,
        auroc=estimate(mean(auroc), [mean_draws(roc)], settings.confidence),
        auprc=estimate(mean(average_precision), [mean_draws(prc)], settings.confidence),
        auprc_trapezoid=float(mean(trapezoid_area)[0]),
        published_auroc=published.mean(keys) if published else None,
    )


def _micro(usable: Sequence[_Finding]) -> float | None:
    if not usable:
        return None
    truth = np.concatenate([finding.truth for finding in usable])
    values = np.concatenate([finding.values for finding in usable])
    return float(trapezoid_area(truth, Ranking(values))[0])
