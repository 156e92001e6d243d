"""What to roll out, in words: a later stage only where it is shown to be better than the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from promptray.calibrate.adapt.report import Advice, Difference, StageName
from promptray.calibrate.evaluation_report import Estimate

Verdict = Literal["better", "worse", "not shown", "inconclusive"]
#: Units that the test part must have before an interval over them is believed.
LEAST_UNITS = 10
_NAMES = {"zero-shot": "zero-shot", "probe": "the probe", "fine-tune": "fine-tuning"}


def verdict(difference: Estimate, units: int) -> Verdict:
    """Judge a difference by its interval: only one that excludes 0 says anything."""
    if units < LEAST_UNITS or difference.low is None or difference.high is None:
        return "inconclusive"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "not shown"


def recommend(
    stages: Sequence[StageName], differences: Sequence[Difference], by: str, units: int, unit: str
) -> Advice:
    """Go from the simplest stage to the most laborious, and take the next only where it is better.

    Parameters
    ----------
    stages : sequence of str
        In this order.
    differences : sequence of Difference
        Of every two of them.
    by : str
        The number that decides.
    units : int
        Independent units of the test part.
    unit : str
        What they are: patients, say.
    """
    if len(stages) == 1:
        alone = f"{_capital(_NAMES[stages[0]])} is the only stage: there is nothing to compare it with."
        return Advice(stage=None, by=by, reasons=[alone])
    found: Mapping[tuple[str, str], Difference] = {(each.earlier, each.later): each for each in differences}
    chosen, reasons = stages[0], []
    for later in stages[1:]:
        more = found[chosen, later].numbers
        if by not in more:
            reasons.append(f"{_capital(_NAMES[later])} and {_NAMES[chosen]} cannot be compared by {by}.")
            continue
        judged = verdict(more[by], units)
        reasons.append(_said(later, chosen, more[by], judged, by))
        if judged == "better":
            reasons += _losses(later, chosen, more, by, units)
            chosen = later
    if units < LEAST_UNITS:
        few = f"The test part holds {units} {unit}, fewer than {LEAST_UNITS}"
        reasons.append(f"{few}: intervals over so few mean little, so nothing is recommended.")
        return Advice(stage=None, by=by, reasons=reasons)
    return Advice(stage=chosen, by=by, reasons=reasons)


def _said(later: str, earlier: str, more: Estimate, judged: Verdict, by: str) -> str:
    facts = f"{by} {_interval(more)}"
    what = {
        "better": f"is better than {_NAMES[earlier]}: {facts}; the interval of the difference excludes 0.",
        "worse": f"is worse than {_NAMES[earlier]}: {facts}; the interval of the difference excludes 0.",
        "not shown": f"is not shown to be better than {_NAMES[earlier]}: {facts}; the interval holds 0.",
        "inconclusive": f"cannot be compared with {_NAMES[earlier]} on so few: {facts}.",
    }[judged]
    return f"{_capital(_NAMES[later])} {what}"


def _losses(later: str, earlier: str, more: Mapping[str, Estimate], by: str, units: int) -> list[str]:
    """Say what a better stage is worse in: a gain of the whole can hide the loss of a class."""
    worse = [name for name, each in more.items() if name != by and verdict(each, units) == "worse"]
    return [
        f"But {_NAMES[later]} is worse than {_NAMES[earlier]} in {name}: {_interval(more[name])}."
        for name in worse
    ]


def _interval(more: Estimate) -> str:
    interval = "no interval" if more.low is None else f"{more.low:+.3f} to {more.high:+.3f}"
    return f"{more.value:+.3f} ({interval})"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
