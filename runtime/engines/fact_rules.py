"""What the facts of a set of engines must say before it is used, whoever wrote them.

A site's index is hashed but not signed, so an edited one is read like any other. What a builder never writes
is refused: a bound wider than the gate's own, an error beyond it, another count. Bounds that depend on the
golden scores are looked at where those are read (`promptray.runtime.golden`). That gates on images were held
is the one claim that nothing here can prove: their report stays outside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from promptray.runtime.bundle.manifest import Manifest
from promptray.runtime.engines.bounds import MOST_LEVELS, is_exact, map_bound, score_bound
from promptray.runtime.engines.facts import EngineSet, EngineSpeed, HeadGate, PrepareGate
from promptray.runtime.engines.sources import baseline, known_graphs, precision_of


def fault_of(facts: EngineSet, manifest: Manifest) -> str | None:
    """Return the first thing that the facts of a set say and no builder writes, or None.

    Parameters
    ----------
    facts : EngineSet
    manifest : Manifest
        Of the bundle that they are stored with.
    """
    return next(_faults(facts, manifest), None)


def _faults(facts: EngineSet, manifest: Manifest) -> Iterator[str]:
    yield from _of_graphs(facts, manifest)
    exact, gate = is_exact(facts.graphs), facts.gate
    yield from _of_heads("its gate", gate.heads, manifest, exact=exact)
    if gate.pictures != (most := len(manifest.golden.images)):
        yield f"its gate was held on {gate.pictures} golden pictures of {most}"
    if facts.prepares != (gate.prepare is not None):
        yield "its engine that prepares images passed no gate, or it has none"
    if gate.prepare is not None:
        yield from _of_prepare(gate.prepare, manifest)
    yield from _of_speed(facts, manifest)


def _of_graphs(facts: EngineSet, manifest: Manifest) -> Iterator[str]:
    roles = [(each.role, each.head) for each in facts.graphs]
    must = [("image", None), *(("head", head.name) for head in manifest.heads)]
    if roles not in (must, [*must, ("prepare", None)]):
        yield f"its graphs are {', '.join(each.title for each in facts.graphs)}"
    known = {(each.file, each.sha256): each for each in known_graphs(manifest)}
    for graph in facts.graphs:
        if known.get((graph.file, graph.sha256), graph) != graph:
            yield f"the bundle has {graph.file} as another graph or in another precision"
    scoring = [each for each in facts.graphs if each.role != "prepare"]
    if facts.precision != precision_of(scoring):
        yield f"its precision is {precision_of(scoring)}, and it says {facts.precision}"


def _of_heads(what: str, heads: Sequence[HeadGate], manifest: Manifest, *, exact: bool) -> Iterator[str]:
    if [each.head for each in heads] != [head.name for head in manifest.heads]:
        yield f"{what} was held for other heads"
        return
    for head, held in zip(manifest.heads, heads, strict=True):
        most = map_bound(head, exact=exact)
        if (held.map_error is None, held.map_tolerance is None) != (most is None, most is None):
            yield f"{what} was held with maps of {head.name} where it has none, or without where it has some"
        if not held.passed or min(held.score_error, held.map_error or 0.0) < 0:
            yield f"head {head.name} did not pass {what}"
        # Of narrower types the golden scores decide, which are read later.
        if held.score_tolerance > score_bound(head, math.inf, exact=exact):
            yield f"{what} let scores of {head.name} be {held.score_tolerance:g} off"
        if (held.map_tolerance or 0.0) > (most or 0.0):
            yield f"{what} let maps of {head.name} be {held.map_tolerance:g} off"


def _of_prepare(gate: PrepareGate, manifest: Manifest) -> Iterator[str]:
    what = "the gate of its engine that prepares images"
    yield from _of_heads(what, gate.heads, manifest, exact=False)
    # Golden images in colour are prepared on the CPU; which these are, only the files tell.
    most = len(manifest.golden.images)
    if gate.pictures > most or (manifest.preprocessing.colour != "rgb" and gate.pictures < most):
        yield f"{what} was held on {gate.pictures} golden pictures of {most}"
    if not 0 <= gate.level_error <= gate.level_tolerance <= MOST_LEVELS:
        yield f"{what} let pixels be {gate.level_tolerance:g} grey levels off, or they are further off"


def _of_speed(facts: EngineSet, manifest: Manifest) -> Iterator[str]:
    speed, wider = facts.speed, baseline(manifest, facts.backend, facts.version, facts.graphs)
    if speed is not None and not _in_order(speed):
        yield "its times are not in order"
    if wider is None:
        return
    if speed is None or speed.quartiles is None or speed.beside != wider:
        yield f"it was not timed beside engines in {wider}"
    elif not speed.quartiles[1] < 1:
        yield f"it is not faster than engines in {wider}"


def _in_order(speed: EngineSpeed) -> bool:
    """Whether times are above nothing, and a comparison with another set is whole or not there."""
    compared = [speed.beside, speed.ratio, speed.quartiles]
    if speed.milliseconds <= 0 or any(each is None for each in compared) != all(
        each is None for each in compared
    ):
        return False
    if speed.ratio is None or speed.quartiles is None:
        return True
    low, high = speed.quartiles
    return 0 < low <= speed.ratio <= high
