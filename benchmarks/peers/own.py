"""PromptRay as a contestant: a bundle through the public scorer, on every backend of this processor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.contest import Contestant, Scores
from benchmarks.peers.result import Row
from promptray import Scorer
from promptray.runtime.backends import NAMES, OF_ENGINES
from promptray.runtime.bundle import Bundle
from promptray.runtime.errors import ScoringError
from promptray.runtime.golden import read_golden
from promptray.runtime.packs import read_pack
from promptray.runtime.preprocess import normalise

HOSTS = [name for name in NAMES if name not in OF_ENGINES]


@contextmanager
def opened(bundle: Path, threads: int) -> Iterator[tuple[list[Scorer], list[Row]]]:
    """Open a bundle on every backend of the processor; give the scorers, and rows of backends not here."""
    scorers, absent = [], []
    with ExitStack() as stack:
        for name in HOSTS:
            try:
                scorer = Scorer.open(bundle, backend=name, threads=threads, site=None)
            except ScoringError as error:
                if error.code != "backend.unavailable":
                    raise
                absent.append(Row(contestant=f"PromptRay ({name})", kind="promptray", not_run=error.message))
            else:
                scorers.append(stack.enter_context(scorer))
        yield scorers, absent


def contestant(scorer: Scorer, pixels: NDArray[np.float32]) -> Contestant:
    """Return PromptRay's call: network input in, scores out, heat maps with them."""

    def score() -> Scores:
        (head,) = scorer.submit_pixels(pixels).result().heads
        return head.logits

    facts = scorer.backend
    return Contestant(f"PromptRay ({facts.name})", "promptray", facts.version, score)


def first_picture(bundle: Path) -> NDArray[np.float32]:
    """Return the network input of the first golden picture, float32 (1, channels, height, width)."""
    opened_bundle = Bundle.open(bundle)
    return normalise(read_golden(opened_bundle).pictures[:1], opened_bundle.manifest.preprocessing)


def wordings(count: int) -> list[str]:
    """Return the first prompts of the pack that the bundles are made with."""
    return [each.prompts[0] for each in read_pack("padchest192").findings[:count]]


def score_exactly(scorer: Scorer, count: int) -> None:
    """Add prompts of the pack until `count` are scored."""
    findings = read_pack("padchest192").findings[len(scorer.prompts) : count]
    for add in (partial(scorer.prompts.add, each.key, each.prompts) for each in findings):
        add()
    if len(scorer.prompts) != count:
        raise AssertionError(f"{len(scorer.prompts)} prompts are scored, not {count}")
