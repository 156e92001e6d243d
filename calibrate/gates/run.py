"""Run the gates: from scores to the report with its verdict."""

from __future__ import annotations

import numpy as np

from promptray.calibrate.auroc import auroc
from promptray.calibrate.comparison_report import AurocPair
from promptray.calibrate.evaluation_report import Estimate
from promptray.calibrate.gates.data import Floats, GateData, ModelScores
from promptray.calibrate.gates.flips import FlipCounts
from promptray.calibrate.gates.judge import judge
from promptray.calibrate.gates.map_agreement import map_correlation
from promptray.calibrate.gates.report import (
    Disagreement,
    FindingAgreement,
    Gate,
    GateReport,
    ModelRef,
    NotRun,
)
from promptray.calibrate.gates.statistics import FindingStatistics, Statistic, draw, finding_statistics
from promptray.calibrate.gates.verdict import overall
from promptray.calibrate.ranking import Ranking
from promptray.calibrate.reference_threshold import REFERENCE_RATE
from promptray.runtime.gate_limits import CONFIDENCE, Limits
from promptray.runtime.version import VERSION

_OF_LABELS = ("auroc_loss", "class_auroc_loss")
_SHOWN = 8  # images that the report points out


def run_gates(
    data: GateData,
    limits: Limits,
    *,
    draws: int = 1000,
    seed: int = 0,
    confidence: float = CONFIDENCE,
    reference_rate: float = REFERENCE_RATE,
) -> GateReport:
    """Hold a candidate against the original.

    AUROC losses need labels. All other gates need none and run over all images and findings; without labels
    the report says so, and lists every gate that was not held.

    Parameters
    ----------
    data : GateData
        Of n images and k findings.
    limits : Limits
        For example ``LIMITS["int8"]``.
    draws, seed : int
        Of the bootstrap, which draws patients.
    confidence : float
        Of the intervals; each end is a one-sided limit of (1 + confidence) / 2.
    reference_rate : float
        Where no threshold is stored for a finding, flips are counted at the operating point that this share
        of the images reaches with the original.

    Returns
    -------
    GateReport
        The same data, limits and seed give the same report.

    Raises
    ------
    ValueError
        If `confidence` or `reference_rate` is not between 0 and 1, or `draws` is less than 1.

    Examples
    --------
    >>> logits = np.random.default_rng(0).normal(size=(400, 2))
    >>> original, candidate = ModelScores("fp32", logits), ModelScores("int8", logits + 1e-6)
    >>> data = GateData(("edema", "mass"), original, candidate)
    >>> run_gates(data, Limits(flips=0.01), draws=100).verdict
    'passed'
    """
    if not 0 < confidence < 1 or not 0 < reference_rate < 1 or draws < 1:
        raise ValueError("confidence and reference_rate are between 0 and 1, draws at least 1")
    found = [finding_statistics(data, number) for number in range(len(data.findings))]
    draw(
        (statistic for finding in found for statistic in finding.all()),
        data.patient_of,
        draws=draws,
        seed=seed,
    )
    flips = FlipCounts(data, reference_rate, confidence)
    held = list(judge(data, limits, found, flips, confidence))
    gates = [each for each in held if isinstance(each, Gate)]
    return GateReport(
        schema="promptray-gates",
        schema_version=1,
        software=f"promptray {VERSION}",
        verdict=overall([gate.verdict for gate in gates]),
        original=_ref(data.original),
        candidate=_ref(data.candidate),
        noise_model=None if data.again is None else _ref(data.again),
        images=data.images,
        patients=len(np.unique(data.patient_of)),
        clustered_by="image" if data.patients is None or not data.patients_known else "patient",
        labelled=any(gate.name in _OF_LABELS for gate in gates),
        draws=draws,
        seed=seed,
        confidence=confidence,
        reference_rate=reference_rate,
        gates=gates,
        not_run=[each for each in held if isinstance(each, NotRun)],
        findings=[_agreement(data, number, each, flips, confidence) for number, each in enumerate(found)],
        disagreements=_disagreements(data, found),
        notes=_notes(data, flips, reference_rate),
    )


def _ref(model: ModelScores) -> ModelRef:
    return ModelRef(name=model.name, sha256=model.sha256)


def _agreement(
    data: GateData, number: int, found: FindingStatistics, flips: FlipCounts, confidence: float
) -> FindingAgreement:
    original, candidate = _logits(data.original)[:, number], _logits(data.candidate)[:, number]
    delta = candidate - original
    known = data.labels is not None

    def estimated(statistic: Statistic | None) -> Estimate | None:
        return None if statistic is None else statistic.estimate(confidence)

    return FindingAgreement(
        key=found.key,
        spread=found.spread,
        max_delta=float(np.abs(delta).max()),
        mean_delta=float(np.abs(delta).mean()),
        bias=float(delta.mean()),
        spearman=estimated(found.spearman),
        flips=flips.count(flips.changed(data.candidate.logits), number),
        positives=int(found.truth.sum()) if known else None,
        negatives=int((~found.truth).sum()) if known else None,
        auroc=_auroc(data, number, found, confidence),
        map_correlation=estimated(found.map_correlation),
        map_overlap=estimated(found.map_overlap),
    )


def _auroc(data: GateData, number: int, found: FindingStatistics, confidence: float) -> AurocPair | None:
    loss = None if found.auroc_loss is None else found.auroc_loss.estimate(confidence)
    if loss is None:
        return None
    first, second = (
        float(auroc(found.truth, Ranking(_logits(side)[found.labelled, number]))[0])
        for side in (data.original, data.candidate)
    )
    return AurocPair(first=first, second=second, loss=loss)


def _disagreements(data: GateData, found: list[FindingStatistics]) -> list[Disagreement]:
    """Return the images whose logits differ most, in spreads of their finding."""
    original, candidate = _logits(data.original), _logits(data.candidate)
    spreads = np.array([finding.spread or np.inf for finding in found])
    delta = np.abs(candidate - original) / spreads
    worst = delta.argmax(1)
    order = np.argsort(-delta.max(1), kind="stable")[:_SHOWN]
    return [
        Disagreement(
            image=data.numbers[image],
            sha256=None if data.image_hashes is None else data.image_hashes[image],
            finding=data.findings[worst[image]],
            original=float(original[image, worst[image]]),
            candidate=float(candidate[image, worst[image]]),
            map_correlation=_one_map(data, int(image), int(worst[image])),
        )
        for image in order
        if delta[image].max() > 0
    ]


def _one_map(data: GateData, image: int, finding: int) -> float | None:
    one, other = data.original.maps, data.candidate.maps
    if one is None or other is None:
        return None
    return float(map_correlation(one[image, finding][None], other[image, finding][None])[0])


def _notes(data: GateData, flips: FlipCounts, reference_rate: float) -> list[str]:
    images, findings = data.images, len(data.findings)
    notes = [
        f"Label-free gates run over all {images} images x {findings} findings, {images * findings} decisions."
    ]
    if data.labels is None:
        notes.append("There are no labels: what the change costs in AUROC was not measured.")
    if any(flips.stored):
        stated = ", ".join(
            f"{key} {data.thresholds[key]:g}" for key in data.findings if key in data.thresholds
        )
        notes.append(f"Flips are counted at stored thresholds: {stated}.")
    if not all(flips.stored):
        without = flips.stored.count(False)
        notes.append(
            f"{without} of {findings} findings have no stored threshold: their flips are counted at the "
            f"reference operating point, which {reference_rate:.0%} of the images reach with the original."
        )
    if data.patients is None or not data.patients_known:
        copies = "" if data.patients is None else ", and all copies of one as one patient's"
        notes.append(f"Patients are not known: every image counts as a patient of its own{copies}.")
    if data.again is None:
        notes.append("There is one build of the original only: the noise floor is not known.")
    return notes


def _logits(model: ModelScores) -> Floats:
    return np.asarray(model.logits, np.float64)
