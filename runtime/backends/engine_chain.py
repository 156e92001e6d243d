"""Engines one after the other on the device: pixels go in, the answers of all heads come out.

A :class:`Program` has everything that one call of one shape needs, made once: a stream, contexts with their
shapes and addresses set, memory for features and answers, pinned memory of the host, and the whole work
recorded as a CUDA graph. A call then is: copy the pixels, launch, wait, copy the answers. Nothing is
allocated on the device.

What is no number is looked for on the host, in all that goes from one engine to the next: a head may make a
number of it. So features come back with the answers, and so do pixels that were on the device already.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.backends import Array, GpuOptions, Outputs, require_finite
from promptray.runtime.backends.cuda import Cuda, Recorded
from promptray.runtime.backends.device_array import DeviceArray, device_array, require_on_device
from promptray.runtime.backends.flights import Flight, Pool
from promptray.runtime.backends.lifetime import Lifetime
from promptray.runtime.backends.tensorrt_engine import Context, Engine, Shape
from promptray.runtime.deadline import Deadline
from promptray.runtime.errors import ScoringError

_ALIGNMENT = 256
_PIXELS = "pixels"


class BoundEngine:
    """An engine with its resident inputs on the device; it runs as part of a chain.

    Parameters
    ----------
    engine : Engine
    resident : mapping of str to array
        Uploaded here, and given back with this object.
    """

    def __init__(self, engine: Engine, resident: Mapping[str, Array]) -> None:
        self.engine = engine
        taken = {name: array for name, array in resident.items() if name in engine.inputs}
        self.shapes: dict[str, Shape] = {name: array.shape for name, array in taken.items()}
        self.resident = {name: engine.library.cuda.upload(array) for name, array in taken.items()}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Refuse: the features would go to the host and back."""
        raise TypeError("an engine runs as part of a chain: Graphs.chain")


class _Layout:
    """Tensors side by side in one piece of memory, so that one copy brings all of them to the host."""

    def __init__(self, heads: Sequence[Mapping[str, tuple[Shape, np.dtype[Any]]]]) -> None:
        self.size = 0
        self.places: list[dict[str, tuple[int, Shape, np.dtype[Any]]]] = []
        for tensors in heads:
            places = {}
            for name, (shape, dtype) in tensors.items():
                places[name] = (self.size, shape, dtype)
                size = math.prod(shape) * dtype.itemsize
                self.size += -(-size // _ALIGNMENT) * _ALIGNMENT
            self.places.append(places)

    def read(self, content: NDArray[np.uint8]) -> list[dict[str, Array]]:
        """Return the tensors as views of the memory's content."""
        return [
            {
                name: content[offset : offset + math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)
                for name, (offset, shape, dtype) in places.items()
            }
            for places in self.places
        ]


@dataclass(frozen=True)
class Landed:
    """What a call gave.

    Attributes
    ----------
    heads : list of dict of str to array
        Every output of each head.
    fault : ScoringError or None
        Why they are no answers: pixels or features that are not finite.
    """

    heads: list[dict[str, Array]]
    fault: ScoringError | None


class Program:
    """The image engine and bound heads for B images, ready to run.

    Parameters
    ----------
    cuda : Cuda
    image : BoundEngine
    heads : sequence of BoundEngine
    pixels : tuple of int
        Shape of the network input.
    cuda_graph : bool

    Raises
    ------
    ScoringError
        ``backend.shape``, ``backend.capture``, ``backend.out-of-memory``, ``backend.failed``,
        ``backend.device-lost``.
    """

    def __init__(
        self, cuda: Cuda, image: BoundEngine, heads: Sequence[BoundEngine], pixels: Shape, cuda_graph: bool
    ) -> None:
        self._cuda = cuda
        self.stream, self.event = cuda.stream(), cuda.event()
        size = math.prod(pixels) * image.engine.dtypes[_PIXELS].itemsize
        self._input, self._pixels = cuda.pinned(size), cuda.memory(size)
        first = Context(image.engine, {_PIXELS: pixels}, self.stream)
        first.place(_PIXELS, self._pixels.address)
        self._contexts = [first, *(self._context(head, first.shapes) for head in heads)]
        self._layout = _Layout(
            [
                {name: (shape, each.engine.dtypes[name]) for name, shape in each.shapes.items()}
                for each in self._contexts
            ]
        )
        self._results, self._output = cuda.memory(self._layout.size), cuda.pinned(self._layout.size)
        self._place(heads)
        self._on_device = False
        self._recorded: Recorded | None = None
        self._warm_up(cuda_graph)

    def _context(self, head: BoundEngine, features: Mapping[str, Shape]) -> Context:
        taken = {name: features[name] for name in head.engine.inputs if name not in head.shapes}
        context = Context(head.engine, {**taken, **head.shapes}, self.stream)
        for name, memory in head.resident.items():
            context.place(name, memory.address)
        return context

    def _place(self, heads: Sequence[BoundEngine]) -> None:
        """Give every output its place, and the heads the features."""
        for context, places in zip(self._contexts, self._layout.places, strict=True):
            for name, (offset, _, _) in places.items():
                context.place(name, self._results.address + offset)
        features = self._layout.places[0]
        for context, head in zip(self._contexts[1:], heads, strict=True):
            for name in head.engine.inputs:
                if name not in head.shapes:
                    context.place(name, self._results.address + features[name][0])

    def _warm_up(self, cuda_graph: bool) -> None:
        """Run once, so that the libraries do what cannot be recorded; record; launch once."""
        self._input.bytes[:] = 0
        self._cuda.copy_in(self._pixels, self._input, self._input.size, self.stream)
        self._enqueue()
        self._cuda.wait(self.stream)
        if cuda_graph:
            recorded = self._cuda.record(self.stream, self._enqueue)
            self._cuda.launch(recorded, self.stream)
            self._cuda.wait(self.stream)
            self._recorded = recorded

    def _enqueue(self) -> None:
        for context in self._contexts:
            context.enqueue(self.stream)
        self._cuda.copy_out(self._output, self._results, self._layout.size, self.stream)

    def begin(self, pixels: Array | DeviceArray) -> None:
        """Queue a call."""
        self._on_device = isinstance(pixels, DeviceArray)
        if isinstance(pixels, DeviceArray):
            if pixels.stream is not None:
                self._cuda.follow(self.stream, pixels.stream, self.event)
            self._cuda.copy_across(self._pixels, pixels.address, pixels.size, self.stream)
            self._cuda.copy_out(self._input, self._pixels, self._input.size, self.stream)
        else:
            self._input.bytes[:] = pixels.reshape(-1).view(np.uint8)
            self._cuda.copy_in(self._pixels, self._input, self._input.size, self.stream)
        if self._recorded is None:
            self._enqueue()
        else:
            self._cuda.launch(self._recorded, self.stream)

    def wait(self, limit: Deadline) -> None:
        """Return when the call is done."""
        if limit.bounded:
            limit.wait(self.is_done, "while the device was at work")
        else:
            self._cuda.wait(self.stream)

    def is_done(self) -> bool:
        """Tell whether the call is done."""
        return self._cuda.is_done(self.stream)

    def read(self) -> Landed:
        """Return the answers of a call that is done."""
        fault = None
        features, *heads = self._layout.read(self._output.bytes)
        try:
            if self._on_device:
                require_finite_pixels(self._input.bytes.view(np.float32))
            require_finite(features, "image")
        except ScoringError as error:  # of the picture: nothing is wrong with the program
            fault = error
        return Landed([{name: values.copy() for name, values in head.items()} for head in heads], fault)


class EngineChain:
    """A chain of engines (see :class:`promptray.runtime.backends.Chain`).

    Of each shape there are as many programs as streams; those for one image are made here.

    Parameters
    ----------
    cuda : Cuda
    lifetime : Lifetime
        Of the backend.
    building : lock
        Of the backend: contexts are made one at a time.
    aloft : dict
        Of the backend (see :class:`Pool`).
    image : BoundEngine
    heads : sequence of BoundEngine
    options : GpuOptions
    """

    def __init__(
        self,
        cuda: Cuda,
        lifetime: Lifetime,
        building: threading.RLock,
        aloft: dict[Any, None],
        image: BoundEngine,
        heads: Sequence[BoundEngine],
        options: GpuOptions,
    ) -> None:
        self._cuda, self._lifetime = cuda, lifetime
        facts = next(each for each in image.engine.facts.inputs if each.name == _PIXELS)
        self._sides = tuple(int(side) for side in facts.dims[1:])
        self._most = image.engine.most(_PIXELS)
        self._arrival = cuda.stream()
        make = partial(_make, building, cuda, image, tuple(heads))
        self._pools = {
            images: Pool[Program, Landed](
                partial(make, (images, *self._sides), options.cuda_graphs), options.streams, aloft
            )
            for images in range(1, self._most + 1)
        }
        self._pools[1].fill()

    def submit(self, pixels: Any, limit: Deadline) -> InFlight:
        """Begin to score pixels; more than the engine takes at once go as several calls, one after the other.

        Pixels of the host that are not finite are refused here, those of the device when they were scored.
        """
        start = time.perf_counter()
        with self._lifetime.use():
            self._cuda.require_usable()
            limit.check("before the engines")
            incoming = self._checked(pixels)
            count = incoming.shape[0]
            flights = [
                self._begin(incoming, first, min(self._most, count - first), limit)
                for first in range(0, count, self._most)
            ]
        return InFlight(self._cuda, flights, limit, start, count)

    def _begin(
        self, incoming: Array | DeviceArray, first: int, images: int, limit: Deadline
    ) -> Flight[Program, Landed]:
        part: Array | DeviceArray
        if isinstance(incoming, DeviceArray):
            shape = (images, *self._sides)
            offset = first * incoming.size // incoming.shape[0]
            part = DeviceArray(incoming.address + offset, shape, incoming.stream, incoming.owner)
        else:
            part = incoming[first : first + images]
        pool = self._pools[images]
        return pool.fly(lambda program: program.begin(part), Program.read, limit, part)

    def _checked(self, pixels: Any) -> Array | DeviceArray:
        found: Array | DeviceArray
        if isinstance(pixels, np.ndarray):
            if pixels.dtype != np.float32:
                raise _unfit(self._sides, f"{pixels.dtype}")
            found = np.ascontiguousarray(pixels)
        else:
            found = device_array(pixels, self._arrival.handle)
        if found.shape[1:] != self._sides or len(found.shape) != 4 or not found.shape[0]:
            raise _unfit(self._sides, str(list(found.shape)))
        if isinstance(found, np.ndarray):
            require_finite_pixels(found)
        else:
            require_on_device(self._cuda.device_of(found.address))
        return found


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
                {name: np.concatenate([part[head][name] for part in parts]) for name in first}
                for head, first in enumerate(parts[0])
            ]
        return Outputs(heads, {"infer": 1000 * (time.perf_counter() - self._start)})


def _make(
    building: threading.RLock,
    cuda: Cuda,
    image: BoundEngine,
    heads: Sequence[BoundEngine],
    pixels: Shape,
    cuda_graph: bool,
) -> Program:
    with building:
        return Program(cuda, image, heads, pixels, cuda_graph)


def require_finite_pixels(pixels: Array) -> None:
    """Refuse network input that holds NaN or infinity (``score.not-finite``)."""
    if not np.isfinite(pixels).all():
        raise ScoringError(
            "score.not-finite",
            "the network input holds a value that is no number",
            artefact=_PIXELS,
            cure="make it with scorer.prepare, or as the manifest's section `preprocessing` says",
        )


def _unfit(sides: tuple[int, ...], found: str) -> ScoringError:
    return ScoringError(
        "score.input",
        "network input of another shape or type than the model takes",
        expected=f"float32 (images, {', '.join(map(str, sides))})",
        found=found,
        cure="make it with scorer.prepare, or as the manifest's section `preprocessing` says",
    )
