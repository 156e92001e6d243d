"""One image at a time, in memory that stays: the same scores as in memory of its own, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from promptray.runtime.backends import HOST, OPENVINO, load_backend
from promptray.runtime.backends.sequential import SequentialChain
from promptray.runtime.bound_heads import BoundChain, HeadScores
from promptray.runtime.bundle import Bundle
from promptray.runtime.deadline import Deadline
from promptray.runtime.errors import ScoringError
from promptray.runtime.graphs import Graphs, own_bank
from tests.openvino_bundle import for_openvino

Pixels = NDArray[np.float32]
LARGEST = np.finfo(np.float32).max
Both = tuple[BoundChain, Callable[[Pixels], list[HeadScores]], list[Pixels]]


@pytest.fixture(params=[HOST, OPENVINO])
def both(miniature: Bundle, tmp_path: Path, request: pytest.FixtureRequest) -> Both:
    """The chain, the same graphs with memory made for each call, and twelve images."""
    bundle = for_openvino(miniature.path, tmp_path / "both.bundle")
    manifest = bundle.manifest
    graphs = Graphs(bundle, load_backend(request.param, threads=1), prompts_per_batch=None)
    bound = [graphs.bind(head, own_bank(bundle, head)) for head in manifest.heads]
    rule, rng = manifest.preprocessing, np.random.default_rng(0)
    shape = (1, rule.channels, rule.height, rule.width)
    images = [rng.normal(size=shape).astype(np.float32) for _ in range(12)]

    def anew(pixels: Pixels) -> list[HeadScores]:
        features = graphs.features(pixels)
        return [head.run(features) for head in bound]

    return graphs.chain(bound), anew, images


def same(found: list[HeadScores], expected: list[HeadScores]) -> bool:
    return all(
        np.array_equal(one, other)
        for head, wanted in zip(found, expected, strict=True)
        for one, other in zip(head, wanted, strict=True)
        if one is not None and other is not None
    )


def test_scores_are_those_of_fresh_memory_and_stay(both: Both) -> None:
    chain, anew, images = both
    found = [chain.run(image) for image in images]
    for scores, image in zip(found, images, strict=True):
        assert same(scores, anew(image))
    assert not same(found[0], found[1])


def test_scores_of_several_images_stay_too(both: Both) -> None:
    chain, anew, images = both
    pairs = [np.concatenate(images[first : first + 2]) for first in range(0, 12, 2)]
    found = [chain.run(pair) for pair in pairs]
    for scores, pair in zip(found, pairs, strict=True):
        assert same(scores, anew(pair))


def test_calls_of_many_threads_do_not_see_each_other(both: Both) -> None:
    chain, anew, images = both
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(chain.run, images * 5))
    for scores, image in zip(found, images * 5, strict=True):
        assert same(scores, anew(image))


def test_a_call_that_failed_leaves_the_next_one_as_it_was(both: Both) -> None:
    chain, anew, images = both
    chain.run(images[0])
    with pytest.raises(ScoringError, match="image graph") as refusal:
        chain.run(np.full_like(images[0], LARGEST))
    assert refusal.value.code == "score.not-finite"
    assert same(chain.run(images[1]), anew(images[1]))


def test_memory_is_made_once_for_images_that_follow_each_other_and_of_those_refused(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, anew, images = both
    chain.run(images[0])
    monkeypatch.setattr(SequentialChain, "__init__", None)  # whoever makes another chain now fails
    with pytest.raises(ScoringError, match=r"score\.not-finite"):
        chain.run(np.full_like(images[0], np.nan))
    with pytest.raises(ScoringError, match=r"score\.input"):
        chain.run(images[0][:, :1])
    with pytest.raises(ScoringError, match=r"score\.deadline"):
        chain.submit(images[0], Deadline(0.0, None))
    assert same(chain.run(images[1]), anew(images[1]))
