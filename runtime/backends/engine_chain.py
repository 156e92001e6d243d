"""Engines one after the other on the device: pixels go in, the answers of all heads come out.

A :class:`Program` has everything that one call of one shape needs, made once: a stream, contexts with their
shapes and addresses set, memory for features and answers, pinned memory of the host, and the whole work
recorded as a CUDA graph. A call then is: copy the pixels, launch, wait, copy the answers. Nothing is
allocated on the device.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from promptray.runtime.backends import Array, GpuOptions, Outputs
from promptray.runtime.backends.cuda import Cuda, Memory, Recorded
from promptray.runtime.backends.device_array import DeviceArray, device_array
from promptray.runtime.backends.engine_prepare import Preparation
from promptray.runtime.backends.flights import Flight, Pool
from promptray.runtime.backends.layout import Layout
from promptray.runtime.backends.lifetime import Lifetime
from promptray.runtime.backends.tensorrt_engine import Context, Engine, Shape
from promptray.runtime.deadline import Deadline
from promptray.runtime.errors import ScoringError
from promptray.runtime.prepare_graph import StoredImage

_PIXELS = "pixels"
#: What a call begins with: pixels of the host, pixels of the device, or one image to prepare there.
Incoming = Array | DeviceArray | StoredImage


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
    prepare : Engine, optional
        Prepares an image before; for programs of one image.

    Raises
    ------
    ScoringError
        ``backend.shape``, ``backend.capture``, ``backend.out-of-memory``, ``backend.failed``,
        ``backend.device-lost``.
    """

    def __init__(
        self,
        cuda: Cuda,
        image: BoundEngine,
        heads: Sequence[BoundEngine],
        pixels: Shape,
        cuda_graph: bool,
        prepare: Engine | None = None,
    ) -> None:
        self._cuda = cuda
        self.stream, self.event = cuda.stream(), cuda.event()
        size = math.prod(pixels) * image.engine.dtypes[_PIXELS].itemsize
        self._input, self._pixels = cuda.pinned(size), cuda.memory(size)
        first = Context(image.engine, {_PIXELS: pixels}, self.stream)
        first.place(_PIXELS, self._pixels.address)
        self._features: dict[str, Memory] = {}
        for name, shape in first.shapes.items():
            self._features[name] = cuda.memory(_bytes(image.engine, name, shape))
            first.place(name, self._features[name].address)
        contexts = [self._context(head, first.shapes) for head in heads]
        self._layouts = _side_by_side(contexts)
        size = self._layouts[-1].size
        self._answers, self._output = cuda.memory(size), cuda.pinned(size)
        for context, layout in zip(contexts, self._layouts, strict=True):
            for name, offset in layout.offsets.items():
                context.place(name, self._answers.address + offset)
        self._contexts = [first, *contexts]
        self._preparation = Preparation(cuda, prepare, self._pixels, self.stream) if prepare else None
        self._recorded: Recorded | None = None
        self._warm_up(cuda_graph)

    def _context(self, head: BoundEngine, features: Mapping[str, Shape]) -> Context:
        taken = {name: features[name] for name in head.engine.inputs if name not in head.shapes}
        context = Context(head.engine, {**taken, **head.shapes}, self.stream)
        for name in taken:
            context.place(name, self._features[name].address)
        for name, memory in head.resident.items():
            context.place(name, memory.address)
        return context

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
        self._cuda.copy_out(self._output, self._answers, self._answers.size, self.stream)

    def begin(self, pixels: Incoming) -> None:
        """Queue a call."""
        if isinstance(pixels, StoredImage):
            assert self._preparation is not None  # noqa: S101 - the chain looked
            self._preparation.enqueue(pixels)
        elif isinstance(pixels, DeviceArray):
            if pixels.stream is not None:
                self._cuda.follow(self.stream, pixels.stream, self.event)
            self._cuda.copy_across(self._pixels, pixels.address, pixels.size, self.stream)
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

    def read(self) -> list[dict[str, Array]]:
        """Return the answers of a call that is done: every output of each head."""
        content = self._output.bytes.copy()
        return [layout.views(content) for layout in self._layouts]


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
    prepare : Engine, optional
        Prepares images: the chain takes :class:`StoredImage` as well.
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
        prepare: Engine | None = None,
    ) -> None:
        self._cuda, self._lifetime, self._prepares = cuda, lifetime, prepare is not None
        facts = next(each for each in image.engine.facts.inputs if each.name == _PIXELS)
        self._sides = tuple(int(side) for side in facts.dims[1:])
        self._most = image.engine.most(_PIXELS)
        self._arrival = cuda.stream()
        make = partial(_make, building, cuda, image, tuple(heads))
        self._pools = {
            images: Pool[Program, list[dict[str, Array]]](
                partial(make, (images, *self._sides), options.cuda_graphs, prepare if images == 1 else None),
                options.streams,
                aloft,
            )
            for images in range(1, self._most + 1)
        }
        self._pools[1].fill()

    def submit(self, pixels: Any, limit: Deadline) -> InFlight:
        """Begin to score pixels; more than the engine takes at once go as several calls, one after the other.

        From the host, pixels that are not finite are refused here: features stay on the device, where nothing
        looks at them.
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
        return InFlight(self._cuda, flights, limit, start)

    def _begin(
        self, incoming: Incoming, first: int, images: int, limit: Deadline
    ) -> Flight[Program, list[dict[str, Array]]]:
        part: Incoming
        if isinstance(incoming, StoredImage):
            part = incoming
        elif isinstance(incoming, DeviceArray):
            shape = (images, *self._sides)
            offset = first * incoming.size // incoming.shape[0]
            part = DeviceArray(incoming.address + offset, shape, incoming.stream, incoming.owner)
        else:
            part = incoming[first : first + images]
        pool = self._pools[images]
        return pool.fly(lambda program: program.begin(part), Program.read, limit, part)

    def _checked(self, pixels: Any) -> Incoming:
        if isinstance(pixels, StoredImage) and self._prepares:
            return pixels  # its values are whole numbers, and no level of its table is none
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
            flat = found.reshape(-1)
            if not np.isfinite(np.dot(flat, flat)):
                raise ScoringError(
                    "score.not-finite", "the network input holds a value that is no number", artefact="pixels"
                )
        return found


class InFlight:
    """Images under way (see :class:`promptray.runtime.backends.Pending`)."""

    def __init__(
        self,
        cuda: Cuda,
        flights: Sequence[Flight[Program, list[dict[str, Array]]]],
        limit: Deadline,
        start: float,
    ) -> None:
        self._cuda, self._flights, self._limit, self._start = cuda, flights, limit, start

    def done(self) -> bool:
        """Tell whether the answer is there."""
        return all(flight.done() for flight in self._flights)

    def result(self) -> Outputs:
        """Wait and return the answer."""
        parts = [flight.answer(self._limit) for flight in self._flights]
        self._limit.check("after the engines")
        self._cuda.collect()
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
    prepare: Engine | None,
) -> Program:
    with building:
        return Program(cuda, image, heads, pixels, cuda_graph, prepare)


def _side_by_side(contexts: Sequence[Context]) -> list[Layout]:
    """Lay the outputs of all contexts into one piece of memory."""
    made: list[Layout] = []
    for context in contexts:
        outputs = {name: (shape, context.engine.dtypes[name]) for name, shape in context.shapes.items()}
        made.append(Layout(outputs, made[-1].size if made else 0))
    return made


def _bytes(engine: Engine, name: str, shape: Shape) -> int:
    return math.prod(shape) * engine.dtypes[name].itemsize


def _unfit(sides: tuple[int, ...], found: str) -> ScoringError:
    return ScoringError(
        "score.input",
        "network input of another shape or type than the model takes",
        expected=f"float32 (images, {', '.join(map(str, sides))})",
        found=found,
        cure="make it with scorer.prepare, or as the manifest's section `preprocessing` says",
    )
