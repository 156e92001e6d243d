"""Which layers may be quantised so that a gate still accepts the model: as many as possible."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from promptray.calibrate.quantise.prepare import Prepared
from promptray.calibrate.quantise.report import Quantised

#: Whether a graph may be used: from its bytes to a verdict.
Gate = Callable[[bytes], bool]


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One mix and its verdict.

    Attributes
    ----------
    kept : list of str
        Groups that stayed high.
    share : float
        Multiplications in quantised layers, of all that could be.
    accepted : bool
    """

    kept: list[str]
    share: float
    accepted: bool


class Mix(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a search.

    Attributes
    ----------
    best : Quantised or None
        The accepted graph with the most multiplications quantised; None when the gate accepts none, not even
        a single group.
    trials : list of Trial
        In the order they were made.
    """

    best: Quantised | None
    trials: list[Trial]


def fastest_mix(
    prepared: Prepared,
    most_sensitive: Sequence[str],
    gate: Gate,
    *,
    progress: Callable[[Trial], None] = lambda _: None,
) -> Mix:
    """Search greedily for the mix with the most multiplications quantised that a gate accepts.

    From all groups quantised, the most sensitive ones are kept high one after the other until the gate
    accepts; then each of them but the last is quantised again where the gate still accepts, costliest first.
    The gate is asked at most twice per group. Multiplications stand for time: whether a mix is faster than
    fp32 on a machine is measured on that machine.

    Parameters
    ----------
    prepared : Prepared
    most_sensitive : sequence of str
        All groups, the most sensitive first (see :func:`sensitivity`).
    gate : callable
    progress : callable
        Called with every trial.

    Raises
    ------
    ValueError
        `most_sensitive` are not the groups of `prepared`.
    """
    if sorted(most_sensitive) != sorted(prepared.groups):
        raise ValueError("the ranking must hold every group once")
    total = sum(prepared.groups.values())
    trials: list[Trial] = []

    def attempt(kept: Sequence[str]) -> Quantised | None:
        made = prepared.make(keep=kept)
        share = 1 - sum(prepared.groups[group] for group in kept) / total
        trials.append(Trial(kept=list(kept), share=share, accepted=gate(made.content)))
        progress(trials[-1])
        return made if trials[-1].accepted else None

    for count in range(len(most_sensitive)):  # with all of them kept nothing would be quantised
        kept = list(most_sensitive[:count])
        if best := attempt(kept):
            break
    else:
        return Mix(best=None, trials=trials)
    for group in sorted(kept[:-1], key=lambda each: -prepared.groups[each]):
        fewer = [each for each in kept if each != group]
        if made := attempt(fewer):
            best, kept = made, fewer
    return Mix(best=best, trials=trials)
