"""Engines one after the other on the device, of as many images and for as many callers as there are."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from promptray.runtime.backends import Array, GpuOptions, Outputs
from promptray.runtime.backends.call_sizes import parts_of
from promptray.runtime.backends.cuda import Cuda
from promptray.runtime.backends.declared import PIXELS
from promptray.runtime.backends.engine_program import BoundEngine, Incoming, Landed, Program
from promptray.runtime.backends.finite import require_finite
from promptray.runtime.backends.finite_check import FiniteCheck
from promptray.runtime.backends.flights import Flight, Pool
from promptray.runtime.backends.host_input import sides_of
from promptray.runtime.backends.lifetime import Lifetime
from promptray.runtime.backends.network_input import network_input, part_of
from promptray.runtime.backends.tensorrt_engine import Engine, Shape
from promptray.runtime.deadline import Deadline
from promptray.runtime.prepare_graph import StoredImage


class EngineChain:
    """A chain of engines (see :class:`promptray.runtime.backends.Chain`).

    Of each size of a call (:mod:`call_sizes`) there are as many programs as streams; those for one image are
    made here.

    Parameters
    ----------
    cuda : Cuda
    finite : FiniteCheck
    lifetime : Lifetime
        Of the backend.
    building : lock
        Of the backend: contexts are made one at a time.
    aloft : dict
        Of the backend (see :class:`Pool`).
    image : BoundEngine
    heads : sequence of BoundEngine
    options : GpuOptions
    prepare : Engine, optional
        Prepares images: the chain takes :class:`StoredImage` as well.
    """

    def __init__(
        self,
        cuda: Cuda,
        finite: FiniteCheck,
        lifetime: Lifetime,
        building: threading.RLock,
        aloft: dict[Any, None],
        image: BoundEngine,
        heads: Sequence[BoundEngine],
        options: GpuOptions,
        prepare: Engine | None = None,
    ) -> None:
        self._cuda, self._lifetime, self._prepares = cuda, lifetime, prepare is not None
        self._sides = sides_of(image.engine.facts)
        self._sizes = image.engine.call_sizes(PIXELS)
        self._arrival = cuda.stream()
        make = partial(_make, building, cuda, finite, image, tuple(heads))
        self._pools = {
            images: Pool[Program, Landed](
                partial(make, (images, *self._sides), options.cuda_graphs, prepare if images == 1 else None),
                options.streams,
                aloft,
            )
            for images in self._sizes
        }
        self._pools[1].fill()

    def submit(self, pixels: Any, limit: Deadline) -> InFlight:
        """Begin to score pixels; a number of images that is no size of a call goes as several.

        Pixels of the host that are not finite are refused here, those of the device by the answer.
        """
        start = time.perf_counter()
        with self._lifetime.use():
            self._cuda.require_usable()
            limit.check("before the engines")
            incoming = self._checked(pixels)
            count = incoming.shape[0]
            flights = [
                self._begin(incoming, first, last - first, limit)
                for first, last in parts_of(count, self._sizes)
            ]
        return InFlight(self._cuda, flights, limit, start, count)

    def _begin(self, incoming: Incoming, first: int, images: int, limit: Deadline) -> Flight[Program, Landed]:
        part: Incoming = incoming if isinstance(incoming, StoredImage) else part_of(incoming, first, images)
        pool = self._pools[images]
        return pool.fly(lambda program: program.begin(part), Program.read, limit, part)

    def _checked(self, pixels: Any) -> Incoming:
        if isinstance(pixels, StoredImage) and self._prepares:
            return pixels  # its values are whole numbers, and no level of its table is none
        return network_input(pixels, self._sides, self._cuda, self._arrival)


class InFlight:
    """Images under way (see :class:`promptray.runtime.backends.Pending`)."""

    def __init__(
        self,
        cuda: Cuda,
        flights: Sequence[Flight[Program, Landed]],
        limit: Deadline,
        start: float,
        images: int,
    ) -> None:
        self._cuda, self._flights, self._limit, self._start = cuda, flights, limit, start
        self.images = images

    def done(self) -> bool:
        """Tell whether the answer is there."""
        return all(flight.done() for flight in self._flights)

    def result(self) -> Outputs:
        """Wait and return the answer."""
        landed = [flight.answer(self._limit) for flight in self._flights]
        self._limit.check("after the engines")
        self._cuda.collect()
        for each in landed:
            if each.fault is not None:
                raise each.fault
        parts = [each.heads for each in landed]
        heads: list[dict[str, Array]] = parts[0]
        if len(parts) > 1:
            heads = [
                {name: np.concatenate([part[place][name] for part in parts]) for name in first}
                for place, first in enumerate(parts[0])
            ]
        for head in heads:
            require_finite(head, "head")
        return Outputs(heads, {"infer": 1000 * (time.perf_counter() - self._start)})


def _make(
    building: threading.RLock,
    cuda: Cuda,
    finite: FiniteCheck,
    image: BoundEngine,
    heads: Sequence[BoundEngine],
    pixels: Shape,
    cuda_graph: bool,
    prepare: Engine | None,
) -> Program:
    with building:
        return Program(cuda, finite, image, heads, pixels, cuda_graph, prepare)
