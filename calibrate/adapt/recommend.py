"""What to roll out, in words: a later stage only where it is shown to be better than the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from promptray.calibrate.evaluation_report import Estimate

Verdict = Literal["better", "worse", "not shown", "inconclusive"]
#: Units that the test part must have before an interval over them is believed.
LEAST_UNITS = 10
NAMES = {"zero-shot": "zero-shot", "probe": "the probe", "fine-tune": "fine-tuning"}


@dataclass(frozen=True)
class Recommendation:
    """The stage to roll out, and why.

    Attributes
    ----------
    stage : str or None
        None where nothing can be said.
    reasons : list of str
    """

    stage: str | None
    reasons: list[str]


def verdict(difference: Estimate, units: int) -> Verdict:
    """Judge a difference by its interval: only one that excludes 0 says anything."""
    if units < LEAST_UNITS or difference.low is None or difference.high is None:
        return "inconclusive"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "not shown"


def recommend(
    stages: Sequence[str],
    differences: Mapping[tuple[str, str], Estimate],
    measure: str,
    units: int,
    unit: str,
) -> Recommendation:
    """Go from the simplest stage to the most laborious, and take the next only where it is better.

    Parameters
    ----------
    stages : sequence of str
        In this order.
    differences : mapping of (str, str) to Estimate
        (earlier, later) -> what the later one has more of `measure`.
    measure : str
        What is decided by.
    units : int
        Independent units of the test part.
    unit : str
        What they are: patients, say.
    """
    if not differences:
        only = f"{_capital(NAMES[stages[0]])} is the only stage: there is nothing to compare it with."
        return Recommendation(None, [only])
    chosen, reasons = stages[0], []
    for later in stages[1:]:
        gain = differences.get((chosen, later))
        if gain is None:
            reasons.append(f"{_capital(NAMES[later])} and {NAMES[chosen]} have no {measure} to compare.")
            continue
        found = verdict(gain, units)
        reasons.append(_said(later, chosen, gain, found, measure))
        if found == "better":
            chosen = later
    if units < LEAST_UNITS:
        few = (
            f"The test part holds {units} {unit}, fewer than {LEAST_UNITS}: intervals over so few mean "
            "little, so nothing is recommended."
        )
        return Recommendation(None, [*reasons, few])
    return Recommendation(chosen, reasons)


def _said(later: str, earlier: str, gain: Estimate, found: Verdict, measure: str) -> str:
    interval = "no interval" if gain.low is None else f"{gain.low:+.3f} to {gain.high:+.3f}"
    facts = f"{measure} {gain.value:+.3f} ({interval})"
    what = {
        "better": f"is better than {NAMES[earlier]}: {facts}; the interval of the difference excludes 0.",
        "worse": f"is worse than {NAMES[earlier]}: {facts}; the interval of the difference excludes 0.",
        "not shown": f"is not shown to be better than {NAMES[earlier]}: {facts}; the interval holds 0.",
        "inconclusive": f"cannot be compared with {NAMES[earlier]} on so few: {facts}.",
    }[found]
    return f"{_capital(NAMES[later])} {what}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
