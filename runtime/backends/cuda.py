"""CUDA, as little of it as scoring needs: every return code is checked, every resource has an owner.

Through ``cuda-bindings`` (13 and 12; ``cuda-python`` 11 calls the same module ``cuda.cudart``), not through
torch. Device 0 is used, whichever the caller's thread is set to (:meth:`Cuda.current`);
``CUDA_VISIBLE_DEVICES`` chooses which that is.

A resource is given back when nothing refers to its object any longer, yet never at that moment: a garbage
collection may run anywhere, also while a graph is being captured, where freeing is forbidden.
:meth:`Cuda.collect` is called where it is allowed.

TensorRT and ONNX Runtime bring a CUDA runtime of their own, each with a last error of its own: what
``cudaGetLastError`` says here is never about them. What all share is the device's context. It is asked
(:meth:`Cuda.check_library`).
"""

from __future__ import annotations

import itertools
import re
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.backends.cuda_device import device_facts, load_bindings
from promptray.runtime.backends.cuda_resources import Event, Kept, Memory, Pinned, Recorded, Stream
from promptray.runtime.backends.postponed import postponing
from promptray.runtime.errors import ScoringError

_OUT_OF_MEMORY = 2
_NOT_READY = 600
# After these, CUDA answers every call of the process with an error: there is no way back but a new process.
_LOST = frozenset({46, 201, 214, 220, 226, 700, 702, 709, 710, *range(714, 720), 721, 911, 999})

#: How libraries say it: their error codes are their own, and the runtime they ask is not the one here.
_NO_MEMORY = re.compile(r"out ?of ?memory|failed to allocate|could not be allocated", re.IGNORECASE)


class Cuda:
    """One GPU. Thread-safe, except that a stream is used by one thread at a time.

    Attributes
    ----------
    device : Device
    fault : ScoringError or None
        Why the device can no longer be used, once it was lost.

    Raises
    ------
    ScoringError
        ``backend.unavailable`` without bindings, driver or GPU.
    """

    def __init__(self) -> None:
        self._runtime = runtime = load_bindings()
        self.fault: ScoringError | None = None
        self._held: dict[int, Callable[[], Any]] = {}
        self._numbers = itertools.count()
        self._released: deque[int] = deque()
        self.device = device_facts(runtime)
        kinds = runtime.cudaMemcpyKind
        self._to_device, self._to_host = kinds.cudaMemcpyHostToDevice, kinds.cudaMemcpyDeviceToHost
        self._on_device = kinds.cudaMemcpyDeviceToDevice
        self._copy, self._launch = runtime.cudaMemcpyAsync, runtime.cudaGraphLaunch

    @contextmanager
    def current(self) -> Iterator[None]:
        """Let this thread's work go to this device; afterwards its device is what the caller had set."""
        code, before = self._runtime.cudaGetDevice()
        if int(code) or not int(before):  # of a device that was lost, the next call tells
            yield
            return
        self.call("cudaSetDevice", 0)
        try:
            yield
        finally:
            self.call("cudaSetDevice", before)

    # Resources

    def memory(self, size: int) -> Memory:
        """Allocate memory of the device.

        Raises
        ------
        ScoringError
            ``backend.out-of-memory``.
        """
        address = int(self.call("cudaMalloc", size))
        return self.own(Memory(address, size), partial(self._runtime.cudaFree, address))

    def pinned(self, size: int) -> Pinned:
        """Allocate pinned memory of the host."""
        address = int(self.call("cudaHostAlloc", size, self._runtime.cudaHostAllocDefault))
        return self.own(Pinned(address, size), partial(self._runtime.cudaFreeHost, address))

    def stream(self) -> Stream:
        """Make a stream that waits for no other."""
        own = self.call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking)
        return self.own(Stream(own), partial(self._runtime.cudaStreamDestroy, own))

    def event(self) -> Event:
        """Make an event."""
        own = self.call("cudaEventCreateWithFlags", self._runtime.cudaEventDisableTiming)
        return self.own(Event(own), partial(self._runtime.cudaEventDestroy, own))

    def keep(self, owner: Any, resource: Any) -> Kept:
        """Keep what a library allocated on the device until `owner` is gone and it is allowed to free."""
        kept = Kept(resource)
        self.own(owner, kept.let_go)
        return kept

    def collect(self) -> None:
        """Give back what nothing refers to any longer."""
        if self._released:
            with self.current():
                self._collect()

    def _collect(self) -> None:
        while self._released:
            try:
                number = self._released.popleft()
            except IndexError:  # another thread was first
                return
            destroy = self._held.pop(number, None)
            if destroy is not None:
                destroy()

    def close(self) -> None:
        """Give back everything, the newest first. Nothing may use the device any more."""
        with self.current():
            for number in sorted(self._held, reverse=True):
                destroy = self._held.pop(number, None)
                if destroy is not None:
                    destroy()

    def own(self, owner: Any, destroy: Callable[[], Any]) -> Any:
        """Call `destroy` once `owner` is gone and it is allowed, or when everything is given back."""
        number = next(self._numbers)
        self._held[number] = destroy
        weakref.finalize(owner, self._released.append, number).atexit = False
        return owner

    # Work

    def upload(self, array: NDArray[Any]) -> Memory:
        """Put an array on the device; it is there when this returns."""
        values = np.ascontiguousarray(array)
        memory, stream = self.memory(max(values.nbytes, 1)), self.stream()
        # Of memory that is not pinned a copy may be under way when the call returns, also cudaMemcpy's, which
        # the streams here do not wait for.
        self._check("cudaMemcpyAsync", self._copy(
            memory.address, values.ctypes.data, values.nbytes, self._to_device, stream.own
        ))  # fmt: skip
        self.wait(stream)
        return memory

    def device_of(self, address: int) -> int | None:
        """Return the number of the device that holds an address; None where it is none's."""
        found = self.call("cudaPointerGetAttributes", address)
        kinds = self._runtime.cudaMemoryType
        if found.type not in (kinds.cudaMemoryTypeDevice, kinds.cudaMemoryTypeManaged):
            return None
        return int(found.device)

    def copy_in(self, to: Memory, source: Pinned, size: int, stream: Stream) -> None:
        """Queue a copy from the host to the device."""
        self._check("cudaMemcpyAsync", self._copy(
            to.address, source.address, size, self._to_device, stream.own
        ))  # fmt: skip

    def copy_across(self, to: Memory, source: int, size: int, stream: Stream) -> None:
        """Queue a copy from another address of the device."""
        self._check("cudaMemcpyAsync", self._copy(to.address, source, size, self._on_device, stream.own))

    def copy_out(self, to: Pinned, source: Memory, size: int, stream: Stream) -> None:
        """Queue a copy from the device to the host."""
        self._check("cudaMemcpyAsync", self._copy(
            to.address, source.address, size, self._to_host, stream.own
        ))  # fmt: skip

    def clear(self, address: int, size: int, stream: Stream) -> None:
        """Queue that bytes of the device become 0."""
        self.call("cudaMemsetAsync", address, 0, size, stream.own)

    def launch(self, recorded: Recorded, stream: Stream) -> None:
        """Queue recorded work."""
        self._check("cudaGraphLaunch", self._launch(recorded.own, stream.own))

    def wait(self, stream: Stream) -> None:
        """Return when a stream has done its work."""
        self.call("cudaStreamSynchronize", stream.own)

    def is_done(self, stream: Stream) -> bool:
        """Tell whether a stream has done its work."""
        result = self._runtime.cudaStreamQuery(stream.own)
        if int(result[0]) == _NOT_READY:
            return False
        self._check("cudaStreamQuery", result)
        return True

    def follow(self, stream: Stream, producer: int, event: Event) -> None:
        """Let what is queued from now on wait for what is in another library's stream, by its number, now."""
        self.call("cudaEventRecord", event.own, self._runtime.cudaStream_t(producer))
        self.call("cudaStreamWaitEvent", stream.own, event.own, 0)

    def record(self, stream: Stream, enqueue: Callable[[], None]) -> Recorded:
        """Record what `enqueue` queues, without doing it.

        Raises
        ------
        ScoringError
            ``backend.capture`` where it does what cannot be recorded.
        """
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        with postponing():
            self.call("cudaStreamBeginCapture", stream.own, mode)
            with self._ending_capture(stream) as graphs:
                enqueue()
        (graph,) = graphs
        try:
            own = self.call("cudaGraphInstantiateWithFlags", graph, 0)
        except ScoringError:
            self._runtime.cudaGraphDestroy(graph)
            raise
        recorded = self.own(Recorded(own), partial(self._runtime.cudaGraphExecDestroy, own))
        self.call("cudaGraphDestroy", graph)
        return recorded

    @contextmanager
    def _ending_capture(self, stream: Stream) -> Iterator[list[Any]]:
        """End a capture whatever happens in it: a stream left in one refuses all work."""
        graphs: list[Any] = []
        try:
            yield graphs
        except BaseException as error:  # also an interrupt
            _, graph = self._runtime.cudaStreamEndCapture(stream.own)
            if graph is not None and int(graph):
                self._runtime.cudaGraphDestroy(graph)
            if isinstance(error, ScoringError) and error.code == "backend.failed":
                raise _not_recorded(error.message) from error
            raise
        error_code, graph = self._runtime.cudaStreamEndCapture(stream.own)
        if int(error_code) in _LOST or (not int(error_code) and graph is None):
            self._check("cudaStreamEndCapture", (error_code, graph))
        if int(error_code):
            raise _not_recorded(self._name(error_code))
        graphs.append(graph)

    # Errors

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function and return its value.

        Raises
        ------
        ScoringError
            ``backend.out-of-memory``, ``backend.device-lost`` or ``backend.failed``.
        """
        return self._check(name, getattr(self._runtime, name)(*arguments))

    def require_usable(self) -> None:
        """Refuse to go on with a device that was lost.

        Raises
        ------
        ScoringError
            ``score.closed``, saying what became of it.
        """
        if self.fault is not None:
            raise ScoringError(
                "score.closed",
                "the device was lost, and with it this scorer",
                artefact=self.device.title,
                found=self.fault.message,
                cure="start a new process; after a lost device CUDA refuses all further work of the old one",
            )

    def check_library(self, what: str, said: Sequence[str]) -> ScoringError:
        """Return the error of a library's call: of a lost device, of memory, else in its own words.

        After a fault that the device does not survive, every call that needs its context fails with it,
        whichever runtime makes the call. Anything else that the question may come back with (it may be asked
        while a graph is being recorded) is not about the library.

        Parameters
        ----------
        what : str
            What was called.
        said : sequence of str
            What the library said of it, the cause first.
        """
        error = self._runtime.cudaMemGetInfo()[0]
        message = next((line.splitlines()[0][:300] for line in said if line.strip()), "it does not say why")
        if int(error) in _LOST:
            return self.explained(what, int(error), f"{self._name(error)}: {message}")
        if int(error):
            self._runtime.cudaGetLastError()
        memory = any(_NO_MEMORY.search(line) for line in said)
        return self.explained(what, _OUT_OF_MEMORY if memory else 0, message)

    def _check(self, name: str, result: tuple[Any, ...]) -> Any:
        code = int(result[0])
        if code:
            self._runtime.cudaGetLastError()  # or the caller's own next look at it would find ours
            raise self.explained(name, code, self._name(result[0]))
        return result[1] if len(result) > 1 else None

    def explained(self, what: str, code: int, message: str) -> ScoringError:
        """Return the error for a code of CUDA; after one that tells of a lost device nothing goes on."""
        if code == _OUT_OF_MEMORY:
            return ScoringError(
                "backend.out-of-memory",
                f"the GPU has no memory left: {what}",
                artefact=self.device.title,
                found=message,
                cure="close what else uses the GPU, use fewer streams (GpuOptions) or fewer prompts",
            )
        if code in _LOST:
            self.fault = ScoringError(
                "backend.device-lost",
                f"the GPU failed and can do no further work in this process: {what}: {message}",
                artefact=self.device.title,
                cure="start a new process; if it happens again, run `promptray doctor` and look at the "
                "system's log of the driver",
            )
            return self.fault
        return ScoringError(
            "backend.failed",
            f"{what}: {message}",
            artefact=self.device.title,
            cure="run `promptray verify` on the bundle and `promptray doctor` on this machine",
        )

    def _name(self, error: Any) -> str:
        name = self._runtime.cudaGetErrorName(error)[1]
        return f"{name.decode() if isinstance(name, bytes) else name} ({int(error)})"


def _not_recorded(found: str) -> ScoringError:
    return ScoringError(
        "backend.capture",
        "the engines cannot be recorded as a CUDA graph",
        found=found,
        cure="`promptray engine BUNDLE --no-cuda-graphs` gates them for use without, where every layer is "
        "queued anew (in Python, for one scorer: gpu=GpuOptions(cuda_graphs=False))",
    )
