"""A chain in which a call of one image finds all memory in its place.

Around a small network, making room for what goes from one graph to the next would take longer than all else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from promptray.runtime.backends import require_on_host
from promptray.runtime.backends.declared import DeclaredGraph
from promptray.runtime.backends.host_input import fitting, sides_of
from promptray.runtime.backends.sequential import Done, SequentialChain
from promptray.runtime.deadline import Deadline
from promptray.runtime.errors import ScoringError


class OneImageChain:
    """Runs the image graph and then the heads when something is submitted. Thread-safe.

    Parameters
    ----------
    image : DeclaredGraph
        What the bundle says of the image graph.
    several : SequentialChain
        For several images in one call, which get new memory each time: they are for throughput.
    make : callable
        Makes a chain for one image with memory of its own. There are as many as images were scored at the
        same time.
    """

    def __init__(
        self, image: DeclaredGraph, several: SequentialChain, make: Callable[[], SequentialChain]
    ) -> None:
        self._sides, self._several, self._make = sides_of(image), several, make
        self._free: list[SequentialChain] = []

    def submit(self, pixels: Any, limit: Deadline) -> Done:
        """Score pixels (see :class:`promptray.runtime.backends.Chain`)."""
        require_on_host(pixels)
        found = fitting(pixels, self._sides)
        limit.check("before the image graph")  # here, so that what is refused costs no memory
        if len(found) != 1:
            return self._several.submit(found, limit)
        try:
            chain = self._free.pop()
        except IndexError:
            chain = self._make()
        try:
            done = chain.submit(found, limit)
        except ScoringError as error:
            if error.code != "backend.failed":  # what failed half-way is not used again
                self._free.append(chain)
            raise
        self._free.append(chain)
        return done
