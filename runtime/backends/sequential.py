"""A chain for backends without a device of their own: one graph after the other, each answer on the host."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from promptray.runtime.backends import Array, BoundGraph, Outputs, require_leading
from promptray.runtime.backends.finite import require_finite
from promptray.runtime.backends.host_input import PIXELS
from promptray.runtime.deadline import Deadline


def require_sound(features: Mapping[str, Array], images: int) -> None:
    """Refuse features that are not those of as many images (``backend.failed``), or hold what is no number.

    Raises
    ------
    ScoringError
        ``backend.failed`` or ``score.not-finite``, naming the output.
    """
    require_leading(features, (images,), "image")
    require_finite(features, "image")


class SequentialChain:
    """Runs the image graph and then the heads when something is submitted.

    The processor that would do it meanwhile is the caller's own, so ``submit`` returns with the answer there.

    Parameters
    ----------
    image : BoundGraph
    heads : sequence of BoundGraph
    require_sound : callable, optional
        Refuses features, of a number of images, that are not to be scored.
    """

    def __init__(
        self,
        image: BoundGraph,
        heads: Sequence[BoundGraph],
        require_sound: Callable[[Mapping[str, Array], int], None] = require_sound,
    ) -> None:
        self._image, self._heads, self._require_sound = image, tuple(heads), require_sound

    def submit(self, pixels: Array, limit: Deadline) -> Done:
        """Score pixels that :func:`host_input` gave."""
        start = time.perf_counter()
        features = self._image.run({PIXELS: pixels})
        self._require_sound(features, len(pixels))
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
