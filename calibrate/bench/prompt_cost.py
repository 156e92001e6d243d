"""Pixels to scores of any number of prompts: the bundle's own cached ones, repeated under other keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.bench.opening import Opening
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.manifest import Head
from promptray.runtime.deadline import Deadline
from promptray.runtime.graphs import REPRODUCIBLE_PROMPTS, Graphs, own_bank
from promptray.runtime.prompts import PromptBank

Stages = Callable[[], Mapping[str, float]]


@contextmanager
def prompt_cost(
    bundle: Bundle, opening: Opening, head: Head, pixels: NDArray[np.float32]
) -> Iterator[Callable[[int], Stages]]:
    """Yield what makes, of a number of prompts, a call that scores and returns milliseconds by stage.

    Parameters
    ----------
    bundle : Bundle
    opening : Opening
        Says which backend.
    head : Head
        One that takes any number.
    pixels : float32 (1, channels, height, width)

    Raises
    ------
    PromptRayError
        ``backend.*``; also of what is yielded, for a number that engines were not built for.
    """
    backend = opening.engine_room(bundle)
    try:
        together = REPRODUCIBLE_PROMPTS if opening.reproducible else None
        graphs = Graphs(bundle, backend, prompts_per_batch=together)
        own = own_bank(bundle, head)

        def call_of(count: int) -> Stages:
            entries = (replace(each, key=f"{place}") for place, each in enumerate(islice(cycle(own), count)))
            chain = graphs.chain([graphs.bind(head, PromptBank(head.bank, entries))])
            return lambda: chain.submit(pixels, Deadline(None, None)).result()[1]

        yield call_of
    finally:
        backend.close()
