"""What one call of one shape needs, made once and recorded: pixels go in, the answers of all heads come out.

A :class:`Program` has a stream, contexts with their shapes and addresses set, memory for features and
answers, pinned memory of the host, and the whole work recorded as a CUDA graph. A call then is: copy the
pixels, launch, wait, copy the answers. Nothing is allocated on the device.

What is no number is looked for on the host, in all that goes from one engine to the next: a head may make a
number of it. So features come back with the answers, and so do pixels that were on the device already.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from promptray.runtime.backends import Array
from promptray.runtime.backends.cuda import Cuda, Recorded
from promptray.runtime.backends.device_array import DeviceArray
from promptray.runtime.backends.engine_prepare import Preparation
from promptray.runtime.backends.finite import require_finite, require_finite_pixels
from promptray.runtime.backends.layout import Layout
from promptray.runtime.backends.tensorrt_engine import Context, Engine, Shape
from promptray.runtime.deadline import Deadline
from promptray.runtime.errors import ScoringError
from promptray.runtime.prepare_graph import StoredImage

PIXELS = "pixels"
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
        size = math.prod(pixels) * image.engine.dtypes[PIXELS].itemsize
        self._input, self._pixels = cuda.pinned(size), cuda.memory(size)
        first = Context(image.engine, {PIXELS: pixels}, self.stream)
        first.place(PIXELS, self._pixels.address)
        self._contexts = [first, *(self._context(head, first.shapes) for head in heads)]
        self._layouts = _side_by_side(self._contexts)
        size = self._layouts[-1].size
        self._results, self._output = cuda.memory(size), cuda.pinned(size)
        self._place(heads)
        self._preparation = Preparation(cuda, prepare, self._pixels, self.stream) if prepare else None
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
        for context, layout in zip(self._contexts, self._layouts, strict=True):
            for name, offset in layout.offsets.items():
                context.place(name, self._results.address + offset)
        features = self._layouts[0].offsets
        for context, head in zip(self._contexts[1:], heads, strict=True):
            for name in head.engine.inputs:
                if name not in head.shapes:
                    context.place(name, self._results.address + features[name])

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
        self._cuda.copy_out(self._output, self._results, self._results.size, self.stream)

    def begin(self, pixels: Incoming) -> None:
        """Queue a call."""
        self._on_device = isinstance(pixels, DeviceArray)
        if isinstance(pixels, StoredImage):
            assert self._preparation is not None  # noqa: S101 - the chain looked
            self._preparation.enqueue(pixels)
        elif isinstance(pixels, DeviceArray):
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
        features, *heads = [layout.views(self._output.bytes) for layout in self._layouts]
        try:
            if self._on_device:
                require_finite_pixels(self._input.bytes.view(np.float32))
            require_finite(features, "image")
        except ScoringError as error:  # of the picture: nothing is wrong with the program
            fault = error
        return Landed([{name: values.copy() for name, values in head.items()} for head in heads], fault)


def _side_by_side(contexts: Sequence[Context]) -> list[Layout]:
    """Lay the outputs of all contexts into one piece of memory."""
    made: list[Layout] = []
    for context in contexts:
        outputs = {name: (shape, context.engine.dtypes[name]) for name, shape in context.shapes.items()}
        made.append(Layout(outputs, made[-1].size if made else 0))
    return made
