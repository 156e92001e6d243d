"""All gates of a run: each limit that is asked for is held, or it is said why it was not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.evaluation_report import Estimate
from promptray.calibrate.gates.auroc_gates import auroc_gates
from promptray.calibrate.gates.data import Floats, GateData
from promptray.calibrate.gates.flips import FlipCounts
from promptray.calibrate.gates.gate import Measured, judged, settles, with_noise, worst
from promptray.calibrate.gates.report import Gate, GateName, NotRun
from promptray.calibrate.gates.statistics import FindingStatistics, Statistic
from promptray.calibrate.gates.verdict import Sense, decisions_to_settle, verdict_of
from promptray.runtime.gate_limits import Limits

_ASIDE = "on one side of the stored threshold of {} is hardly an image: no decision could change"
_CONSTANT = "the original, or the candidate, gives every image the same logit"


def judge(
    data: GateData,
    limits: Limits,
    findings: Sequence[FindingStatistics],
    flips: FlipCounts,
    confidence: float,
) -> Iterator[Gate | NotRun]:
    """Hold every limit that is asked for against its worst finding, or against all findings together."""
    yield from auroc_gates(findings, limits.auroc_loss, limits.class_auroc_loss, confidence)
    yield from _flip_gates(data, limits, flips, confidence)

    def statistics(name: GateName, of: list[Statistic | None], sense: Sense) -> Iterator[Gate]:
        bound: float | None = getattr(limits, name)
        pairs = [(f, each) for f, each in zip(findings, of, strict=True) if each is not None]
        if bound is not None and pairs:
            yield worst(judged(name, bound, _measured(f, s, data, confidence), sense) for f, s in pairs)

    yield from statistics("spearman", [f.spearman for f in findings], "at least")
    yield from statistics("mean_delta", [f.mean_delta for f in findings], "at most")
    yield from _largest_differences(data, limits, findings)
    yield from statistics("map_correlation", [f.map_correlation for f in findings], "at least")
    yield from statistics("map_overlap", [f.map_overlap for f in findings], "at least")
    if data.original.maps is None:
        yield from _not_run(limits, ("map_correlation", "map_overlap"), "the models give no maps")
    if not data.other_shapes:
        yield from _not_run(limits, ("batch_delta",), "the candidate was called in one shape only")


def _not_run(limits: Limits, names: Sequence[GateName], reason: str) -> Iterator[NotRun]:
    for name in names:
        if getattr(limits, name) is not None:
            yield NotRun(name=name, finding=None, reason=reason)


def _measured(
    finding: FindingStatistics, statistic: Statistic, data: GateData, confidence: float
) -> Measured:
    found = statistic.estimate(confidence)
    too_little = _CONSTANT if found is None else None
    return Measured(finding.key, found, statistic.noise, data.patient_of, too_little=too_little)


def _largest_differences(
    data: GateData, limits: Limits, findings: Sequence[FindingStatistics]
) -> Iterator[Gate]:
    original, candidate = (np.asarray(side.logits, np.float64) for side in (data.original, data.candidate))
    noise = None if data.again is None else _largest(original, [data.again.logits])
    if limits.max_delta is not None:
        largest = _largest(original, [candidate])
        yield _worst_difference("max_delta", limits.max_delta, largest, noise, data, findings)
    if limits.batch_delta is not None and data.other_shapes:
        largest = _largest(candidate, list(data.other_shapes.values()))
        yield _worst_difference("batch_delta", limits.batch_delta, largest, noise, data, findings)


def _largest(own: Floats, sides: Sequence[NDArray[np.floating]]) -> Floats:
    """Return the largest absolute difference of each finding, shape (k,)."""
    largest: Floats = np.max([np.abs(np.asarray(side, np.float64) - own).max(0) for side in sides], axis=0)
    return largest


def _worst_difference(
    name: GateName,
    bound: float,
    largest: Floats,
    noise: Floats | None,
    data: GateData,
    findings: Sequence[FindingStatistics],
) -> Gate:
    def measured(number: int, finding: FindingStatistics) -> Measured:
        if not finding.spread:
            return Measured(finding.key, None, None, data.patient_of, too_little=_CONSTANT)
        found = Estimate(value=float(largest[number] / finding.spread), low=None, high=None, draws=0)
        floor = None if noise is None else float(noise[number] / finding.spread)
        return Measured(finding.key, found, floor, data.patient_of)

    return worst(judged(name, bound, measured(n, finding)) for n, finding in enumerate(findings))


def _asked(flips: FlipCounts, finding: int | None) -> Sequence[int]:
    return range(len(flips.stored)) if finding is None else (finding,)


def _flip_gates(data: GateData, limits: Limits, flips: FlipCounts, confidence: float) -> Iterator[Gate]:
    changed = flips.changed(data.candidate.logits)
    noise = None if data.again is None else flips.changed(data.again.logits)

    def gate(name: GateName, bound: float, finding: int | None) -> Gate:
        """Judge a share of flips: its interval is exact, so it needs no least number of patients."""
        found = flips.count(changed, finding)
        verdict = verdict_of(found.low, found.high, bound)
        needed = reason = None
        if verdict == "inconclusive":
            needed = decisions_to_settle(found.rate, bound, confidence)
            reason = settles(needed, "independent decisions", found.patients)
        aside = [data.findings[n] for n in _asked(flips, finding) if flips.aside[n]]
        if aside and verdict == "passed":
            verdict, reason = "inconclusive", _ASIDE.format(aside[0])
        floor = None if noise is None else flips.count(noise, finding).rate
        if verdict != "passed":
            reason = with_noise(reason, floor, bound)
        return Gate(
            name=name,
            verdict=verdict,
            value=found.rate,
            low=found.low,
            high=found.high,
            bound=bound,
            sense="at most",
            noise_floor=floor,
            finding=None if finding is None else data.findings[finding],
            images=data.images,
            patients=found.patients,
            decisions=found.decisions,
            patients_needed=needed,
            reason=reason,
        )

    if limits.flips is not None:
        yield gate("flips", limits.flips, None)
    if limits.finding_flips is not None:
        bound = limits.finding_flips
        yield worst(gate("finding_flips", bound, number) for number in range(len(data.findings)))
