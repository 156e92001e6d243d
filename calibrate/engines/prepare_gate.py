"""The gate of the engine that prepares images, on its device: golden images to their scores, and frames."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from promptray.runtime.answers import Answers
from promptray.runtime.bound_heads import BoundHead
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.manifest import Head
from promptray.runtime.engines.bounds import MOST_LEVELS, map_bound
from promptray.runtime.engines.facts import EngineFacts, HeadGate, PrepareGate
from promptray.runtime.errors import BuildError
from promptray.runtime.gated_answers import widest
from promptray.runtime.golden import read_golden
from promptray.runtime.golden_prepare import (
    golden_images,
    largest_golden,
    prepared_golden,
    worst_frame,
    worst_level,
)
from promptray.runtime.graphs import Graphs

_WITHOUT = "build it without: `promptray engine BUNDLE --without-prepare`"


def hold_prepare(
    bundle: Bundle, graphs: Graphs, heads: Mapping[str, BoundHead], facts: EngineFacts
) -> PrepareGate:
    """Prepare every grey golden image on the device, look at the pixels, and score it as a whole.

    Frames of 16 bits and of the sizes that the engine is for are prepared beside them, which golden images
    are not. A level is what pixels may be off, in fp32 sets, too: scores and maps have the bounds of narrower
    types.

    Parameters
    ----------
    bundle : Bundle
    graphs : Graphs
        The set's; they prepare.
    heads : mapping of str to BoundHead
        Of all heads, with the bundle's own banks.
    facts : EngineFacts

    Returns
    -------
    PrepareGate
        Passed.

    Raises
    ------
    BuildError
        ``gate.failed``.
    """
    assert graphs.preparing is not None  # noqa: S101 - the caller looked
    manifest, golden = bundle.manifest, read_golden(bundle)
    _require_golden(bundle, facts)
    numbers, pixels = prepared_golden(bundle, graphs.preparing)
    frames = worst_frame(bundle, graphs.preparing, facts.settings.sides)
    chain = graphs.chain(heads.values())
    parts = [chain.run(image) for _, image in golden_images(bundle)]
    found = {
        name: Answers.joined([Answers(*scores) for scores in each])
        for name, each in zip(heads, zip(*parts, strict=True), strict=True)
    }
    gate = PrepareGate(
        pictures=len(numbers),
        level_error=float(np.max([worst_level(bundle, numbers, pixels), frames])),
        level_tolerance=MOST_LEVELS,
        heads=[
            _head_gate(head, golden.answers[head.name], numbers, found[head.name]) for head in manifest.heads
        ],
    )
    if not gate.passed:
        failed = [each for each in gate.heads if not each.passed]
        levels = not gate.level_error <= gate.level_tolerance
        allowed = ["pixels 1 grey level"] * levels + [each.allowed for each in failed]
        seen = [f"pixels {gate.level_error:.3g} grey levels"] * levels + [each.found for each in failed]
        raise _refused(
            bundle,
            facts,
            "images prepared on the device get other pixels or answers than on the CPU; nothing was stored",
            f"at most {'; '.join(allowed)} off",
            "; ".join(seen),
            f"{_WITHOUT}; report it with the output of `promptray doctor`",
        )
    return gate


def _require_golden(bundle: Bundle, facts: EngineFacts) -> None:
    """Refuse golden images that the engine does not take, or none at all; so does `promptray build`."""
    largest, most = largest_golden(bundle), facts.settings.sides.most
    if largest == 0:
        what = "nothing can be said of an engine that prepares images: the bundle has no golden image in grey"
        raise _refused(
            bundle, facts, what, "at least one", "none", f"{_WITHOUT}; or build the bundle with one"
        )
    if largest > most:
        what = "the golden images are larger than the engine that prepares images takes"
        cure = f"{_WITHOUT}; or build the bundle again with tensorrt.sides.most of at least {largest}"
        raise _refused(bundle, facts, what, f"at most {most} rows and columns", str(largest), cure)


def _head_gate(head: Head, stored: Answers, numbers: list[int], found: Answers) -> HeadGate:
    score_error, map_error = stored.of(numbers).errors(found.logits, found.maps)
    return HeadGate(
        head=head.name,
        score_error=score_error,
        # The least spread of a finding is taken over all golden pictures, as for the set itself.
        score_tolerance=widest(stored, stored),
        map_error=map_error if head.map else None,
        map_tolerance=map_bound(head, exact=False),
    )


def _refused(
    bundle: Bundle, facts: EngineFacts, what: str, expected: str, found: str, cure: str
) -> BuildError:
    return BuildError(
        "gate.failed",
        what,
        artefact=f"{bundle.manifest.name} {bundle.short_hash}, {facts.title}",
        expected=expected,
        found=found,
        cure=cure,
    )
