"""The time of a set of engines on its device, in the same rounds as the set that it must be faster than."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from promptray.calibrate.interleaved import interleaved
from promptray.runtime.bound_heads import BoundHead
from promptray.runtime.bundle import Bundle
from promptray.runtime.engines.facts import EngineFacts, EngineSpeed
from promptray.runtime.errors import BuildError
from promptray.runtime.golden import read_golden
from promptray.runtime.graphs import Graphs
from promptray.runtime.preprocess import normalise

_ROUNDS = 41
Calls = Mapping[str, Callable[[], object]]
#: Calls and the baseline's name -> what `interleaved` gives.
Measure = Callable[[Calls, str], Mapping[str, Mapping[str, float]]]


def measured(calls: Calls, baseline: str) -> Mapping[str, Mapping[str, float]]:
    """Time calls in turn, on a device that is warm."""
    return interleaved(calls, rounds=_ROUNDS, baseline=baseline)


def one_image(bundle: Bundle, graphs: Graphs, heads: Mapping[str, BoundHead]) -> Callable[[], object]:
    """Return a call that scores one golden picture against the bundle's own prompts."""
    pixels = normalise(read_golden(bundle).pictures[:1], bundle.manifest.preprocessing)
    chain = graphs.chain(heads.values())
    return lambda: chain.run(pixels)


def time_alone(call: Callable[[], object], measure: Measure = measured) -> EngineSpeed:
    """Time a set that nothing is to be compared with."""
    return EngineSpeed(milliseconds=measure({"own": call}, "own")["own"]["median_ms"])


def time_beside(
    facts: EngineFacts,
    call: Callable[[], object],
    other: str,
    baseline: Callable[[], object],
    measure: Measure = measured,
) -> EngineSpeed:
    """Time a quantised set beside one in a wider type.

    Parameters
    ----------
    facts : EngineFacts
        Of the quantised set.
    call : callable
        Scores one image with it.
    other : str
        Precision of the other set.
    baseline : callable
        Scores one image with that.
    measure : callable, optional

    Raises
    ------
    BuildError
        ``gate.failed`` where it is not faster in at least three rounds of four.
    """
    row = measure({other: baseline, "own": call}, other)["own"]
    low, ratio, high = row["ratio_q1"], row["ratio"], row["ratio_q3"]
    if not high < 1:
        raise BuildError(
            "gate.failed",
            f"the engines are not faster than those in {other} on this device; nothing was stored",
            artefact=facts.title,
            expected=f"less than {other}'s time for one image in at least three rounds of four",
            found=f"{ratio:.2f} of it ({low:.2f} to {high:.2f}), {row['median_ms']:.2f} ms",
            cure=f"use the {other} engines, which this site has",
        )
    return EngineSpeed(milliseconds=row["median_ms"], beside=other, ratio=ratio, quartiles=(low, high))
