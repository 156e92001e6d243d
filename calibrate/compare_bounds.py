"""Bounds on a comparison, judged as the gates judge: passed only where the whole interval is inside.

One thing is otherwise. A largest difference has no interval and asks for no least number of patients: it is a
fact of these images, with which ten pictures may be held equal to a published model's scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from promptray.calibrate.comparison_report import Bound, FindingComparison, Status
from promptray.calibrate.evaluation_report import Estimate
from promptray.calibrate.gates.verdict import LEAST_PATIENTS, verdict_of


@dataclass(frozen=True)
class Bounds:
    """What is asked for; None asks for nothing.

    Attributes
    ----------
    max_delta : float
        Largest absolute difference of a score, over all images and findings.
    min_spearman : float
        Least rank correlation of a finding.
    max_flips : float
        Largest share of images that change sides of a finding's threshold.
    max_auroc_loss, max_class_auroc_loss : float
        Largest loss of the mean AUROC, and of any labelled finding's.
    """

    max_delta: float | None = None
    min_spearman: float | None = None
    max_flips: float | None = None
    max_auroc_loss: float | None = None
    max_class_auroc_loss: float | None = None


@dataclass(frozen=True)
class _Measured:
    """A number that must not exceed its bound, with the ends of its interval."""

    finding: str | None
    value: float | None
    low: float | None = None
    high: float | None = None
    enough: bool = True

    def status(self, bound: float) -> Status:
        if self.low is None or self.high is None:
            return "inconclusive"
        verdict = verdict_of(self.low, self.high, bound)
        if verdict == "passed":
            return "passed" if self.enough else "inconclusive"
        return "failed" if verdict == "refused" else "inconclusive"


def judge(bounds: Bounds, findings: Sequence[FindingComparison], mean_loss: Estimate | None) -> list[Bound]:
    """Hold every bound that was stated against its worst finding.

    Failed: the whole interval is beyond the bound. Inconclusive: the bound is in the interval, or the
    number could not be measured or, but for differences and flips, rests on fewer patients than
    :data:`promptray.calibrate.gates.verdict.LEAST_PATIENTS`.
    """
    return [
        _worst(name, bound, measured, sign)
        for name, bound, measured, sign in _stated(bounds, findings, mean_loss)
        if bound is not None
    ]


def _stated(
    bounds: Bounds, findings: Sequence[FindingComparison], mean_loss: Estimate | None
) -> Iterator[tuple[str, float | None, list[_Measured], int]]:
    delta = [_Measured(f.key, f.max_delta, f.max_delta, f.max_delta) for f in findings]
    ranks = [_lower_is_worse(f.key, f.spearman, f.patients >= LEAST_PATIENTS) for f in findings]
    flips = [_Measured(f.key, f.flips.rate, f.flips.low, f.flips.high) for f in findings]
    losses = [_of(f.key, f.auroc.loss if f.auroc else None) for f in findings if f.labelled]
    yield "max_delta", bounds.max_delta, delta, 1
    yield "min_spearman", bounds.min_spearman, ranks, -1
    yield "max_flips", bounds.max_flips, flips, 1
    yield "max_auroc_loss", bounds.max_auroc_loss, [_of(None, mean_loss)], 1
    yield "max_class_auroc_loss", bounds.max_class_auroc_loss, losses, 1


def _of(finding: str | None, found: Estimate | None) -> _Measured:
    return _Measured(finding, found.value, found.low, found.high) if found else _Measured(finding, None)


def _lower_is_worse(finding: str, found: Estimate | None, enough: bool) -> _Measured:
    if found is None or found.low is None or found.high is None:
        return _Measured(finding, None)
    return _Measured(finding, -found.value, -found.high, -found.low, enough)


def _worst(name: str, bound: float, measured: Sequence[_Measured], sign: int) -> Bound:
    severity = ("passed", "inconclusive", "failed")

    def badness(each: _Measured) -> tuple[int, float]:
        return severity.index(each.status(sign * bound)), float("-inf") if each.value is None else each.value

    worst = max(measured, key=badness, default=_Measured(None, None))
    low, high = (worst.low, worst.high) if sign > 0 else (worst.high, worst.low)

    def signed(value: float | None) -> float | None:
        return None if value is None else sign * value

    return Bound(
        name=name,
        bound=bound,
        status=worst.status(sign * bound),
        value=signed(worst.value),
        low=signed(low),
        high=signed(high),
        finding=worst.finding,
    )
