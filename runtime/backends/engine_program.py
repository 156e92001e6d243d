"""What one call of one shape needs, made once and recorded: pixels go in, the answers of all heads come out.

A :class:`Program` has a stream, contexts with their shapes and addresses set, memory for features and
answers, pinned memory of the host, and the whole work recorded as a CUDA graph. A call then is: copy the
pixels, launch, wait, copy the answers. Nothing is allocated on the device.

Pixels that are on the device already are read where they lie. A recorded graph has fixed addresses, so each
address that comes again gets a recording of its own (:mod:`recordings`).

What is no number is looked for in all that goes from one engine to the next: a head may make a number of it.
That is done on the device, as a part of the work, and only flags come back with the answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from promptray.runtime.backends import Array
from promptray.runtime.backends.cuda import Cuda
from promptray.runtime.backends.cuda_resources import Recorded
from promptray.runtime.backends.declared import PIXELS
from promptray.runtime.backends.device_array import DeviceArray
from promptray.runtime.backends.engine_prepare import Preparation
from promptray.runtime.backends.finite_check import FLAG, FiniteCheck
from promptray.runtime.backends.layout import ALIGNMENT, Layout
from promptray.runtime.backends.not_finite import not_finite, pixels_not_finite
from promptray.runtime.backends.recordings import Recordings
from promptray.runtime.backends.tensorrt_engine import Context, Engine, Shape
from promptray.runtime.deadline import Deadline
from promptray.runtime.errors import ScoringError
from promptray.runtime.prepare_graph import StoredImage

_FLAGS = "flags"
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
    finite : FiniteCheck
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
        finite: FiniteCheck,
        image: BoundEngine,
        heads: Sequence[BoundEngine],
        pixels: Shape,
        cuda_graph: bool,
        prepare: Engine | None = None,
    ) -> None:
        self._cuda, self._finite = cuda, finite
        self.stream, self.event = cuda.stream(), cuda.event()
        size = math.prod(pixels) * image.engine.dtypes[PIXELS].itemsize
        self._input, self._pixels, self._shape = cuda.pinned(size), cuda.memory(size), pixels
        self._first = Context(image.engine, {PIXELS: pixels}, self.stream)
        self._heads = [self._context(head, self._first.shapes) for head in heads]
        self._features, *_ = _side_by_side([self._first])
        self._between = cuda.memory(self._features.size)
        self._answers = _side_by_side(self._heads)
        self._flags = Layout({_FLAGS: ((1 + len(self._first.shapes),), FLAG)}, self._answers[-1].size)
        self._results, self._output = cuda.memory(self._flags.size), cuda.pinned(self._flags.size)
        self._place(heads)
        self._preparation = Preparation(cuda, prepare, self._pixels, self.stream) if prepare else None
        self._recorded: Recorded | None = None
        self._of_others = Recordings() if cuda_graph else None
        self._warm_up(cuda_graph)

    def _context(self, head: BoundEngine, features: Mapping[str, Shape]) -> Context:
        taken = {name: features[name] for name in head.engine.inputs if name not in head.shapes}
        context = Context(head.engine, {**taken, **head.shapes}, self.stream)
        for name, memory in head.resident.items():
            context.place(name, memory.address)
        return context

    def _place(self, heads: Sequence[BoundEngine]) -> None:
        """Give every output its place, and the heads the features."""
        features = {name: self._between.address + at for name, at in self._features.offsets.items()}
        for name, address in features.items():
            self._first.place(name, address)
        for context, head, layout in zip(self._heads, heads, self._answers, strict=True):
            for name, offset in layout.offsets.items():
                context.place(name, self._results.address + offset)
            for name in head.engine.inputs:
                if name not in head.shapes:
                    context.place(name, features[name])

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

    def _enqueue(self, of_others: int | None = None) -> None:
        """Queue the whole work on the program's own pixels, or on those of others at an address.

        Only the latter are looked at here: what comes from the host was, and what is prepared is numbers.
        """
        first, engine = self._flags.offsets[_FLAGS], self._first.engine
        flags = self._results.address + first
        self._cuda.clear(flags, self._flags.size - first, self.stream)
        if of_others is not None:
            self._finite.enqueue(of_others, self._shape, engine.dtypes[PIXELS], flags, self.stream)
        self._first.place(PIXELS, self._pixels.address if of_others is None else of_others)
        self._first.enqueue(self.stream)
        for number, (name, offset) in enumerate(self._features.offsets.items(), 1):
            self._finite.enqueue(
                self._between.address + offset, self._first.shapes[name], engine.dtypes[name],
                flags + number * FLAG.itemsize, self.stream,
            )  # fmt: skip
        for context in self._heads:
            context.enqueue(self.stream)
        self._cuda.copy_out(self._output, self._results, self._results.size, self.stream)

    def begin(self, pixels: Incoming) -> None:
        """Queue a call."""
        if isinstance(pixels, DeviceArray):
            self._begin_there(pixels)
            return
        if isinstance(pixels, StoredImage):
            assert self._preparation is not None  # noqa: S101 - the chain looked
            self._preparation.enqueue(pixels)
        else:
            self._input.bytes[:] = pixels.reshape(-1).view(np.uint8)
            self._cuda.copy_in(self._pixels, self._input, self._input.size, self.stream)
        if self._recorded is None:
            self._enqueue()
        else:
            self._cuda.launch(self._recorded, self.stream)

    def _begin_there(self, pixels: DeviceArray) -> None:
        """Queue a call on pixels where they lie, or on a copy where an engine could not read them there."""
        if pixels.stream is not None:
            self._cuda.follow(self.stream, pixels.stream, self.event)
        address = pixels.address
        if address % ALIGNMENT:
            self._cuda.copy_across(self._pixels, address, pixels.size, self.stream)
            address = self._pixels.address
        enqueue = partial(self._enqueue, address)
        recorded = None
        if self._of_others is not None:
            recorded = self._of_others.find(address, partial(self._cuda.record, self.stream, enqueue))
        if recorded is None:
            enqueue()
        else:
            self._cuda.launch(recorded, self.stream)

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
        heads = [layout.views(self._output.bytes) for layout in self._answers]
        return Landed(
            [{name: values.copy() for name, values in head.items()} for head in heads], self._fault()
        )

    def _fault(self) -> ScoringError | None:
        """Return what the flags say: of the picture, for nothing is wrong with the program."""
        of_pixels, *of_features = self._flags.views(self._output.bytes)[_FLAGS]
        if of_pixels:
            return pixels_not_finite()
        found = zip(self._features.offsets, of_features, strict=True)
        return next((not_finite(name, "image") for name, flag in found if flag), None)


def _side_by_side(contexts: Sequence[Context]) -> list[Layout]:
    """Lay the outputs of all contexts into one piece of memory."""
    made: list[Layout] = []
    for context in contexts:
        outputs = {name: (shape, context.engine.dtypes[name]) for name, shape in context.shapes.items()}
        made.append(Layout(outputs, made[-1].size if made else 0))
    return made
