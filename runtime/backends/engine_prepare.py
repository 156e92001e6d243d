"""The engine that prepares images: stored values go in, the network's pixels are left on the device.

Every image may have another size, so nothing of it is recorded: copy and execution are queued anew, before
the recorded work of the chain. Memory is kept from image to image and grows to the largest seen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.backends.cuda import Cuda
from promptray.runtime.backends.cuda_resources import Memory, Pinned, Stream
from promptray.runtime.backends.layout import Layout
from promptray.runtime.backends.tensorrt_engine import Context, Engine
from promptray.runtime.prepare_graph import StoredImage

_PIXELS = "pixels"


class Preparation:
    """Prepares one image at a time on one stream.

    Parameters
    ----------
    cuda : Cuda
    engine : Engine
        Of the bundle's `prepare` graph.
    pixels : Memory
        Where the network's input goes.
    stream : Stream
    """

    def __init__(self, cuda: Cuda, engine: Engine, pixels: Memory, stream: Stream) -> None:
        self._cuda, self._engine, self._stream = cuda, engine, stream
        self._context = Context(engine, engine.least(), stream)
        self._context.place(_PIXELS, pixels.address)
        self._host: Pinned | None = None
        self._device: Memory | None = None

    def enqueue(self, image: StoredImage) -> None:
        """Queue the preparation of an image, which is copied before this returns.

        Raises
        ------
        ScoringError
            ``backend.shape`` for a size that the engine was not built for; ``backend.*``.
        """
        tensors = image.tensors
        shapes = {name: values.shape for name, values in tensors.items()}
        self._engine.profile_for(shapes)
        layout = Layout({name: (shape, self._engine.dtypes[name]) for name, shape in shapes.items()})
        host, device = self._memory(layout.size)
        for name, place in layout.views(host.bytes).items():
            place[...] = tensors[name]
        self._cuda.copy_in(device, host, layout.size, self._stream)
        self._context.reshape(shapes)
        for name, offset in layout.offsets.items():
            self._context.place(name, device.address + offset)
        self._context.enqueue(self._stream)

    def _memory(self, size: int) -> tuple[Pinned, Memory]:
        """Return memory of at least this size: what was there, or more. The stream has no work here."""
        if self._host is None or self._device is None or self._host.size < size:
            self._host = self._device = None
            self._cuda.collect()
            self._host, self._device = self._cuda.pinned(size), self._cuda.memory(size)
        return self._host, self._device


class PreparingEngine:
    """The engine that prepares images, by itself: its pixels come to the host. For gates."""

    def __init__(self, cuda: Cuda, engine: Engine) -> None:
        self._cuda, self.engine = cuda, engine

    def run(self, image: StoredImage) -> NDArray[np.float32]:
        """Return the network's input, float32 (1, channels, height, width)."""
        layout = Layout({_PIXELS: (image.shape, self.engine.dtypes[_PIXELS])})
        stream, pixels = self._cuda.stream(), self._cuda.memory(layout.size)
        output = self._cuda.pinned(layout.size)
        preparation = Preparation(self._cuda, self.engine, pixels, stream)
        preparation.enqueue(image)
        self._cuda.copy_out(output, pixels, layout.size, stream)
        self._cuda.wait(stream)
        found: NDArray[np.float32] = layout.views(output.bytes.copy())[_PIXELS]
        return found
