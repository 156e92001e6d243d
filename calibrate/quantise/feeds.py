"""Real inputs of the head and text graphs, made as the runtime makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, overload

from numpy.typing import NDArray

from promptray.calibrate.quantise.observe import Feeds
from promptray.calibrate.quantise.session import open_session
from promptray.runtime.prompts import PromptBank
from promptray.runtime.text import EncodedFinding

Array = NDArray[Any]


class LazyFeeds(Sequence[Mapping[str, Array]]):
    """Inputs of a graph that are made when one is looked at: a scheme may need none.

    Parameters
    ----------
    make : callable
    """

    def __init__(self, make: Callable[[], Feeds]) -> None:
        self._make = make

    @cached_property
    def _feeds(self) -> Feeds:
        return self._make()

    def __len__(self) -> int:
        return len(self._feeds)

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Array]: ...
    @overload
    def __getitem__(self, index: slice) -> Feeds: ...
    def __getitem__(self, index: int | slice) -> Mapping[str, Array] | Feeds:
        """Return the inputs of one run, or of several."""
        return self._feeds[index]


def text_feeds(findings: Sequence[EncodedFinding]) -> list[Mapping[str, Array]]:
    """Return the text graph's inputs: every wording alone and unpadded, as it will be encoded."""
    return [prompt.arrays for finding in findings for prompt in (*finding.prompts, *finding.negative_prompts)]


def head_feeds(image_graph: bytes, bank: PromptBank, images: Feeds) -> list[Mapping[str, Array]]:
    """Return the head's inputs: features of every image beside every batch of the bank.

    Parameters
    ----------
    image_graph : bytes
        In fp32: a head is calibrated on features as they should be.
    bank : PromptBank
    images : sequence of mapping
        Inputs of the image graph.
    """
    session = open_session(image_graph, "all")
    names = [output.name for output in session.get_outputs()]
    head_inputs: list[Mapping[str, Array]] = []
    batches = bank.batches()
    for image in images:
        features = dict(zip(names, session.run(names, dict(image)), strict=True))
        head_inputs += [{**features, **batch.tensors} for batch in batches]
    return head_inputs
