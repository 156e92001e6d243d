"""The gates that need labels: the loss of AUROC, on average and of the worst finding."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from promptray.calibrate.bootstrap import mean_draws
from promptray.calibrate.evaluation_report import estimate
from promptray.calibrate.gates.gate import Measured, judged, worst
from promptray.calibrate.gates.report import Gate, NotRun
from promptray.calibrate.gates.statistics import FindingStatistics
from promptray.calibrate.gates.verdict import LEAST_PATIENTS


def auroc_gates(
    findings: Sequence[FindingStatistics], mean: float | None, each: float | None, confidence: float
) -> Iterator[Gate | NotRun]:
    """Judge the loss of the mean AUROC and of every finding's.

    Parameters
    ----------
    findings : sequence of FindingStatistics
        Those without any label are left out and named.
    mean, each : float or None
        The bounds; None asks for nothing.
    confidence : float
    """
    labelled = [finding for finding in findings if len(finding.labelled_patients)]
    if not labelled:
        if mean is not None:
            yield NotRun(name="auroc_loss", finding=None, reason="there are no labels")
        if each is not None:
            yield NotRun(name="class_auroc_loss", finding=None, reason="there are no labels")
        return
    if mean is not None:
        yield judged("auroc_loss", mean, _mean_loss(labelled, confidence))
        for finding in labelled:
            if _least(finding) < LEAST_PATIENTS and any(_least(f) >= LEAST_PATIENTS for f in labelled):
                reason = f"not in the mean: {_shortage(finding)}"
                yield NotRun(name="auroc_loss", finding=finding.key, reason=reason)
    if each is not None:
        yield worst(judged("class_auroc_loss", each, _loss(f, confidence)) for f in labelled)
        for finding in findings:
            if finding not in labelled:
                yield NotRun(
                    name="class_auroc_loss", finding=finding.key, reason="no image has a label of it"
                )


def _least(finding: FindingStatistics) -> int:
    """Return the patients with the finding or without, whichever are fewer."""
    patients, truth = finding.labelled_patients, finding.truth
    return min(len(np.unique(patients[truth])), len(np.unique(patients[~truth])))


def _shortage(finding: FindingStatistics) -> str:
    few = _least(finding)
    return f"{few} patients with or without the finding; {LEAST_PATIENTS} of each are the least"


def _loss(finding: FindingStatistics, confidence: float) -> Measured:
    statistic, few = finding.auroc_loss, _least(finding)
    short = few < LEAST_PATIENTS
    # At the same mix: patients of the rarer kind grow with all.
    share = few / len(np.unique(finding.labelled_patients))
    return Measured(
        finding.key,
        None if statistic is None else statistic.estimate(confidence),
        None if statistic is None else statistic.noise,
        finding.labelled_patients,
        too_little=_shortage(finding) if short else None,
        needed=math.ceil(LEAST_PATIENTS / share) if short and few else None,
    )


def _mean_loss(labelled: Sequence[FindingStatistics], confidence: float) -> Measured:
    enough = [finding for finding in labelled if _least(finding) >= LEAST_PATIENTS]
    losses = [finding.auroc_loss for finding in enough if finding.auroc_loss is not None]
    if not losses:
        fullest = max(labelled, key=_least)
        return Measured(None, None, None, fullest.labelled_patients, too_little=_shortage(fullest))
    value = np.array([np.mean([loss.value() for loss in losses])])
    noises = [loss.noise for loss in losses if loss.noise is not None]
    return Measured(
        None,
        estimate(value, [mean_draws([loss.draws for loss in losses])], confidence),
        float(np.mean(noises)) if noises else None,
        np.concatenate([finding.labelled_patients for finding in enough]),
        images=int(np.any([finding.labelled for finding in enough], axis=0).sum()),
    )
