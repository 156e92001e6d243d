"""CARZero: a bundle against its original in torch, texts encoded before or in every call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import yaml

from benchmarks.peers.carzero_original import TOLERANCE, Original, fixture_error
from benchmarks.peers.contest import Contestant, contest
from benchmarks.peers.own import contestant, first_picture, opened, score_exactly, wordings
from benchmarks.peers.result import Comparison, Target
from promptray.runtime.bundle import Bundle
from promptray.runtime.text import TextEncoder

#: Least ratios at 192 prompts.
ENCODED, AS_CALLED = "original, texts encoded before", "original as it is called"
_WANTED = {ENCODED: 5.5, AS_CALLED: 60.0}
_WANTED_AT = 192
#: A call of the original with 192 texts takes some 20 seconds; its ratio is far from any bound.
_ROUNDS_AS_CALLED = 5


def compare(
    recipe: Path, bundle: Path, prompts: Sequence[int], *, rounds: int, threads: int
) -> Iterator[Comparison]:
    """Compare for each number of prompts, the least first; scores are of one image.

    Raises
    ------
    AssertionError
        Where the original here is not that of the fixture, or PromptRay's scores are not its scores.
    """
    torch.set_num_threads(threads)
    error = fixture_error()
    if not error <= TOLERANCE:
        raise AssertionError(f"the original's scores of the fixture differ by {error}")
    stated = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    original = Original(recipe.parent / stated["checkpoint"], recipe.parent / stated["text_model"])
    pixels = first_picture(bundle)
    planes = np.repeat(pixels, 3, axis=1)  # what the original reads, all alike
    with opened(bundle, threads) as (scorers, absent):
        encoder = _encoder(scorers[0].bundle)
        for count in sorted(prompts):
            for scorer in scorers:
                score_exactly(scorer, count)
            own = [contestant(scorer, pixels) for scorer in scorers]
            tokens = original.process_text(encoder, wordings(count))
            memories = original.encode_text(tokens)
            peers = {
                ENCODED: lambda memories=memories: original.score_encoded(planes, memories),
                AS_CALLED: lambda tokens=tokens: original.score(planes, tokens),
            }
            for name, score in peers.items():
                yield contest(
                    f"CARZero against its {name}",
                    [*own, Contestant(name, "peer", f"torch {torch.__version__}", score)],
                    absent,
                    rounds=min(rounds, _ROUNDS_AS_CALLED) if name == AS_CALLED else rounds,
                    score_tolerance=TOLERANCE,
                )


def targets(comparisons: Sequence[Comparison]) -> list[Target]:
    """Return the design's targets, of what was measured at 192 prompts."""
    found = []
    for comparison in comparisons:
        for row in comparison.rows:
            if comparison.prompts == _WANTED_AT and row.contestant in _WANTED and row.ratio:
                wanted = _WANTED[row.contestant]
                found.append(
                    Target(
                        what=f"CARZero, {_WANTED_AT} prompts: {row.contestant}, its time over PromptRay's",
                        wanted=f">= {wanted}",
                        found=str(row.ratio),
                        met=row.ratio.median >= wanted,
                    )
                )
    return found


def _encoder(bundle: Bundle) -> TextEncoder:
    rule = bundle.manifest.text
    assert rule is not None, "a bundle of CARZero has texts"
    return TextEncoder(rule, bundle.read(rule.tokenizer))
