"""The least gate of a set of engines: on its device, the golden pictures get the original's scores."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.engines.prepare_gate import hold_prepare
from promptray.runtime.answers import Answers
from promptray.runtime.backends.call_sizes import call_sizes
from promptray.runtime.bound_heads import BoundChain, BoundHead
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.manifest import Head
from promptray.runtime.engines.bounds import is_exact, map_bound, score_bound
from promptray.runtime.engines.facts import EngineFacts, EngineGate, HeadGate
from promptray.runtime.errors import BuildError
from promptray.runtime.gated_answers import widest
from promptray.runtime.golden import answers_of, read_golden
from promptray.runtime.graphs import Graphs
from promptray.runtime.preprocess import normalise


def hold_golden(
    bundle: Bundle, graphs: Graphs, heads: Mapping[str, BoundHead], facts: EngineFacts
) -> EngineGate:
    """Score every golden picture in calls of every size that is ever made.

    Parameters
    ----------
    bundle : Bundle
    graphs : Graphs
        The set's.
    heads : mapping of str to BoundHead
        Of all heads, with the bundle's own banks.
    facts : EngineFacts

    Returns
    -------
    EngineGate
        Passed by every head.

    Raises
    ------
    BuildError
        ``gate.failed``, naming the heads that are further off than their tolerance.
    """
    manifest, golden = bundle.manifest, read_golden(bundle)
    pixels = normalise(golden.pictures, manifest.preprocessing)
    images = facts.settings.images
    chain = graphs.chain(heads.values())
    found = [_in_calls_of(size, chain, heads, pixels) for size in call_sizes([images.tuned], images.most)]
    gates = [
        _gate(head, golden.answers[head.name], [each[head.name] for each in found], facts)
        for head in manifest.heads
    ]
    failed = [gate for gate in gates if not gate.passed]
    if failed:
        raise BuildError(
            "gate.failed",
            "the engines give other scores than the original; nothing was stored",
            artefact=f"{manifest.name} {bundle.short_hash}, {facts.title}",
            expected=f"at most {'; '.join(each.allowed for each in failed)} off",
            found="; ".join(each.found for each in failed),
            cure="build in a wider type (--precision fp16 or fp32); where fp32 fails, report it with the "
            "output of `promptray doctor`",
        )
    gate = EngineGate(pictures=len(pixels), heads=gates)
    if graphs.preparing is None:
        return gate
    return msgspec.structs.replace(gate, prepare=hold_prepare(bundle, graphs, heads, facts))


def _in_calls_of(
    size: int, chain: BoundChain, heads: Mapping[str, BoundHead], pixels: NDArray[np.float32]
) -> dict[str, Answers]:
    """Score pictures so many at a time, the first ones again where there are fewer."""
    enough = np.resize(pixels, (max(size, len(pixels)), *pixels.shape[1:]))
    found = answers_of(chain, heads, enough, batch=size)
    return {head: answers.first(len(pixels)) for head, answers in found.items()}


def _gate(head: Head, stored: Answers, found: list[Answers], facts: EngineFacts) -> HeadGate:
    """Hold one head: the worst of all sizes counts. NaN stays NaN, which is within nothing."""
    errors = np.array([stored.errors(each.logits, each.maps) for each in found]).max(axis=0)
    exact = is_exact(facts.graphs)
    return HeadGate(
        head=head.name,
        score_error=float(errors[0]),
        score_tolerance=score_bound(head, widest(stored, found[0]), exact=exact),
        map_error=float(errors[1]) if head.map else None,
        map_tolerance=map_bound(head, exact=exact),
    )
