"""Three verdicts on a measured number: passed, refused, inconclusive; and how much data would decide.

Passed: the whole interval is inside the bound. Refused: the whole interval is outside, so that more data of
the kind would not save it. Inconclusive, which is not passed: the interval holds the bound.

Each end of an interval is a one-sided 95 % limit (together 90 %), because a bound asks about one side. So a
model that is as bad as the bound allows passes one time in twenty at most, and 299 decisions without a flip
settle 1 %. A gate over findings is passed when every finding is, which needs no correction for their number.
"""

from __future__ import annotations

import math
from typing import Literal

from promptray.calibrate.rate import rate_interval
from promptray.runtime.gate_limits import CONFIDENCE

Sense = Literal["at most", "at least"]
Verdict = Literal["passed", "refused", "inconclusive"]

#: Below this number of patients a bootstrap has seen too little to be trusted: in a simulation of paired
#: AUROC losses its 95 % limit covered the truth in 57 to 96 % with 5 or 10 positives, and in 95 % with 30.
LEAST_PATIENTS = 30

_MOST = 10_000_000  # a number that no site will have is no advice


def verdict_of(low: float, high: float, bound: float, sense: Sense = "at most") -> Verdict:
    """Judge an interval, or a number that has none (``low == high``)."""
    if sense == "at least":
        low, high, bound = -high, -low, -bound
    if high <= bound:
        return "passed"
    return "refused" if low > bound else "inconclusive"


def overall(verdicts: list[Verdict]) -> Verdict:
    """Return the verdict of all: the worst; of none, inconclusive, because nothing was shown."""
    if not verdicts:
        return "inconclusive"
    return max(verdicts, key=("passed", "inconclusive", "refused").index)


def patients_to_settle(value: float, low: float, high: float, bound: float, patients: int) -> int | None:
    """Return how many patients would bring an interval to one side of the bound, the value staying.

    An interval shrinks as one over the root of the number of patients. None where the value is on the bound,
    or no reachable number would do.
    """
    distance = abs(bound - value)
    reach = high - value if bound > value else value - low
    if distance == 0 or reach <= 0:
        return None
    return _reachable(math.ceil(patients * (reach / distance) ** 2))


def decisions_to_settle(share: float, bound: float, confidence: float = CONFIDENCE) -> int | None:
    """Return how many independent decisions would settle a share of events against its bound.

    Independent decisions: patients, where each has as many images as any other.
    """

    def settled(count: int) -> bool:
        _, low, high = _rate(share, count, confidence)
        return verdict_of(low, high, bound) != "inconclusive"

    if share == bound:
        return None
    most = 1
    while not settled(most):
        most *= 2
        if most > _MOST:
            return None
    least = most // 2
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if settled(middle) else (middle, most)
    return most


def _rate(share: float, count: int, confidence: float) -> tuple[float, float, float]:
    """Return the interval of a share that was seen in `count` independent decisions."""
    scale = 10**9  # a share is a fraction of decisions that are no more independent for their number
    return rate_interval(round(share * scale), scale, count, confidence)


def _reachable(count: int) -> int | None:
    return count if count <= _MOST else None
