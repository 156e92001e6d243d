"""Which layers may be quantised so that a gate still accepts the model: as many as possible."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import msgspec

Verdict = TypeVar("Verdict")


class Trial(msgspec.Struct, Generic[Verdict], frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One mix and its verdict.

    Attributes
    ----------
    kept : list of str
        Groups that stayed high.
    share : float
        Multiplications in quantised layers, of all that could be.
    accepted : bool
    verdict : object
        What the gate said.
    """

    kept: list[str]
    share: float
    accepted: bool
    verdict: Verdict


class Mix(msgspec.Struct, Generic[Verdict], frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Result of a search.

    Attributes
    ----------
    best : Trial or None
        The accepted mix with the most multiplications quantised; None when the gate accepts none.
    trials : list of Trial
        In the order they were made.
    """

    best: Trial[Verdict] | None
    trials: list[Trial[Verdict]]


def fastest_mix(
    groups: Mapping[str, int],
    most_sensitive: Sequence[str],
    gate: Callable[[list[str]], tuple[bool, Verdict]],
    *,
    progress: Callable[[Trial[Verdict]], None] = lambda _: None,
) -> Mix[Verdict]:
    """Search greedily for the mix with the most multiplications quantised that a gate accepts.

    From all groups quantised, the most sensitive ones are kept high one after the other until the gate
    accepts; then each of them but the last is quantised again where the gate still accepts, costliest first.
    The gate is asked at most twice per group. Multiplications stand for time: whether a mix is faster than
    fp32 on a machine is measured on that machine.

    Parameters
    ----------
    groups : mapping of str to int
        Every group with its multiplications (:attr:`Prepared.groups`).
    most_sensitive : sequence of str
        All of them, the most sensitive first (:attr:`Sensitivity.most_sensitive`).
    gate : callable
        Groups that stay high -> whether that mix may be used, and what is to be kept of the verdict.
    progress : callable
        Called with every trial.

    Raises
    ------
    ValueError
        `most_sensitive` are not the groups.

    Examples
    --------
    >>> mix = fastest_mix({"a": 6, "b": 3, "c": 1}, ["a", "b", "c"], lambda kept: ("b" in kept, None))
    >>> [(trial.kept, trial.accepted) for trial in mix.trials]
    [([], False), (['a'], False), (['a', 'b'], True), (['b'], True)]
    >>> mix.best.kept, mix.best.share
    (['b'], 0.7)
    """
    if sorted(most_sensitive) != sorted(groups):
        raise ValueError("the ranking must hold every group once")
    total = sum(groups.values())
    trials: list[Trial[Verdict]] = []

    def attempt(kept: list[str]) -> Trial[Verdict]:
        accepted, verdict = gate(kept)
        share = 1 - sum(groups[group] for group in kept) / total
        trials.append(Trial(kept=kept, share=share, accepted=accepted, verdict=verdict))
        progress(trials[-1])
        return trials[-1]

    for count in range(len(most_sensitive)):  # with all of them kept nothing would be quantised
        best = attempt(list(most_sensitive[:count]))
        if best.accepted:
            break
    else:
        return Mix(best=None, trials=trials)
    for group in sorted(best.kept[:-1], key=lambda each: -groups[each]):
        fewer = attempt([each for each in best.kept if each != group])
        best = fewer if fewer.accepted else best
    return Mix(best=best, trials=trials)
