"""A chain for backends without a device of their own: one graph after the other, each answer on the host."""

from __future__ import annotations

import time
from collections.abc import Sequence

from promptray.runtime.backends import Array, BoundGraph, Outputs, require_leading
from promptray.runtime.backends.declared import PIXELS
from promptray.runtime.deadline import Deadline


class SequentialChain:
    """Runs the image graph and then the heads when something is submitted.

    The processor that would do it meanwhile is the caller's own, so ``submit`` returns with the answer there.

    Parameters
    ----------
    image, heads
        Their ``run`` refuses pixels, features and answers that hold NaN or infinity.
    """

    def __init__(self, image: BoundGraph, heads: Sequence[BoundGraph]) -> None:
        self._image, self._heads = image, tuple(heads)

    def submit(self, pixels: Array, limit: Deadline) -> Done:
        """Score pixels that :func:`fitting` gave."""
        start = time.perf_counter()
        features = self._image.run({PIXELS: pixels})
        require_leading(features, (len(pixels),), "image")
        middle = time.perf_counter()
        limit.check("after the image graph")
        heads = [head.run(features) for head in self._heads]
        end = time.perf_counter()
        timing = {"image": 1000 * (middle - start), "head": 1000 * (end - middle)}
        return Done(Outputs(heads, timing), limit, len(pixels))


class Done:
    """Answers that are there."""

    def __init__(self, outputs: Outputs, limit: Deadline, images: int) -> None:
        self._outputs, self._limit, self.images = outputs, limit, images

    def done(self) -> bool:
        """Return True."""
        return True

    def result(self) -> Outputs:
        """Return them.

        Raises
        ------
        ScoringError
            ``score.deadline`` or ``score.cancelled``.
        """
        self._limit.check("after the head")
        return self._outputs
