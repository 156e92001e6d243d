"""A GPU made of NumPy arrays that obeys the rules of CUDA strictly, for tests on machines without one.

It offers the functions of ``cuda.bindings.runtime`` that the product uses, with their signatures and return
codes. What real hardware forgives now and then is a failure here, every time:

- Device memory is a table of its own. Its addresses mean nothing to the host, are never used twice, and hold
  NaN until they are written. Using freed memory, freeing twice, and a copy beyond an allocation are recorded
  in :attr:`Gpu.violations`, and the device is lost.
- A stream queues its work and does it only when something waits for it. A missing wait gives wrong numbers.
- Memory that is not pinned is copied when the call returns, or later: cudaMemcpy does it on the legacy
  stream, which the other streams do not wait for.
- A library has a CUDA runtime of its own: what it was refused is no last error of the one that is asked here.
  Only a lost device is everybody's, told by the next call that needs it.
- A thread has a current device. Allocating and queueing kernels while it is not device 0 is a broken rule.
- A copy reads its source when it is done, not when it is queued: a host buffer that is used again too early
  gives wrong numbers.
- While a stream is captured, work is recorded and not done; allocating, freeing and waiting in that thread
  invalidates the capture. A launched graph does the recorded work again, on the recorded addresses.
- A kernel is its PTX text, executed (:mod:`tests.fake_driver`).

Errors are injected: out of memory at the k-th allocation, the device lost at the k-th call. It shows that
code follows the rules. It shows nothing of a real GPU's numbers or speed.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.fake_cuda_rules import (
    OK,
    POISON,
    Capture,
    Event,
    Fault,
    Handle,
    Stream,
    Work,
    cudaDeviceAttr,
    cudaError_t,
    cudaMemcpyKind,
    cudaMemoryType,
    cudaStreamCaptureMode,
    simulated_module,
)
from tests.fake_driver import Driver


class Gpu(Driver):
    """One GPU.

    Parameters
    ----------
    name : str
    compute_capability : (int, int)
    multiprocessors : int

    Attributes
    ----------
    violations : list of str
        Rules that were broken; see :meth:`assert_clean`.
    calls : Counter
        How often each function was called; ``allocation`` counts what takes memory.
    patience : int
        How many times a query says "not ready" before the work is done.
    hangs : bool
        Queries never say that it is.
    refuses_capture : bool
        Ending a capture fails, as where a library does what cannot be recorded.
    """

    def __init__(
        self,
        name: str = "Simulated GPU",
        compute_capability: tuple[int, int] = (8, 9),
        multiprocessors: int = 4,
    ) -> None:
        self.name, self.compute_capability, self.multiprocessors = name, compute_capability, multiprocessors
        super().__init__()

    # Tests

    def lose_device(self, calls: int) -> None:
        """Lose the device at the call after that many more; every call from then on fails."""
        self._lose_in = calls

    def refuse_allocation(self, allocations: int) -> None:
        """Be out of memory at the allocation after that many more, once."""
        self._refuse_in = allocations

    def heal(self) -> None:
        """Inject nothing any more; a lost device stays lost."""
        self._lose_in = self._refuse_in = -1

    @property
    def held(self) -> int:
        """Allocations, streams, events and graphs that were not given back."""
        tables: tuple[dict[int, Any], ...] = (
            self._device, self._pinned, self._events, self._graphs, self._execs, self._modules
        )  # fmt: skip
        return sum(map(len, tables)) + len(self._streams) - 1

    @property
    def used(self) -> int:
        """Bytes of the device that were not given back."""
        return sum(map(len, self._device.values()))

    def assert_clean(self) -> None:
        """Fail where a rule was broken or something was not given back; a lost device takes all with it."""
        assert not self.violations, self.violations
        assert all((buffer == POISON).all() for buffer in self._freed_pinned), "written after it was freed"
        if not self.lost:
            assert self.held == 0, f"{self.held} resources were not given back"

    def array(self, values: np.ndarray, *, device: int = 0) -> int:
        """Put an array on the device, or on another, as another library would; return its address."""
        address = self._allocate(values.nbytes)
        self.write(address, values)
        if device:
            self._elsewhere.add(address)
        return address

    def lend(self, values: np.ndarray) -> int:
        """Take an array of the host for memory of the device, where it lies; return its address.

        For libraries that run on the processor: what is no address of the host would end the process.
        """
        self._device[values.ctypes.data] = values.reshape(-1).view(np.uint8)
        return values.ctypes.data

    def release(self, address: int) -> None:
        """Free what :meth:`array` or :meth:`lend` gave."""
        del self._device[address]

    def queue(self, stream: int, work: Work) -> None:
        """Queue work as another library would."""
        self._streams[stream].queue.append(work)

    # What a library with kernels does (the fake TensorRT)

    def read(self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """Read device memory while queued work is done."""
        size = int(np.prod(shape)) * dtype.itemsize
        return self._span(address, size).view(dtype).reshape(shape).copy()

    def write(self, address: int, values: np.ndarray) -> None:
        """Write device memory while queued work is done."""
        flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self._span(address, flat.nbytes)[:] = flat

    def on_device(self, address: int, size: int) -> bool:
        """Tell whether memory is this device's, and as large."""
        try:
            self._span(address, size, strict=False)
        except Fault:
            return False
        return True

    def enqueue(self, stream: int, work: Work) -> bool:
        """Queue or record work; False where the device is lost or the stream is none."""
        with self._lock:
            if self._enter("enqueue") is not OK or stream not in self._streams:
                return False
            self._put(self._streams[stream], work)
            return True

    def capturing(self, stream: int) -> bool:
        """Tell whether a stream is being captured."""
        return self._streams[stream].capture is not None

    def spoil_capture(self, stream: int) -> None:
        """Do what cannot be recorded."""
        capture = self._streams[stream].capture
        if capture:
            capture.valid = False

    def take(self, size: int) -> int | None:
        """Allocate for a library; None where there is no memory. Its last error is its own runtime's."""
        last = self._last
        error, address = self.cudaMalloc(size)
        self._last = last
        return address if error is OK else None

    def give(self, address: int) -> None:
        """Free for a library, whose destructors report nothing."""
        self.cudaFree(address)

    # The functions of cuda.bindings.runtime

    @property
    def bindings(self) -> ModuleType:
        """The module ``cuda.bindings.runtime``."""
        names = [name for name in dir(self) if name.startswith("cuda")]
        types = (cudaError_t, cudaMemcpyKind, cudaMemoryType, cudaStreamCaptureMode, cudaDeviceAttr)
        return simulated_module(
            "cuda.bindings.runtime", cudaStream_t=Handle,
            cudaStreamNonBlocking=1, cudaEventDisableTiming=2, cudaHostAllocDefault=0,
            **{name: getattr(self, name) for name in names}, **{each.__name__: each for each in types},
        )  # fmt: skip

    def cudaGetDeviceCount(self) -> tuple[cudaError_t, int]:
        return self._enter("cudaGetDeviceCount"), 1

    def cudaGetDeviceProperties(self, device: int) -> tuple[cudaError_t, Any]:
        assert device == 0
        return self._enter("cudaGetDeviceProperties"), SimpleNamespace(name=self.name.encode() + b"\0\0")

    def cudaDeviceGetAttribute(self, attr: cudaDeviceAttr, device: int) -> tuple[cudaError_t, int]:
        assert device == 0
        values = (self.multiprocessors, *self.compute_capability)
        return self._enter("cudaDeviceGetAttribute"), dict(zip(cudaDeviceAttr, values, strict=True))[attr]

    def cudaGetDevice(self) -> tuple[cudaError_t, int]:
        return self._enter("cudaGetDevice"), self.current

    def cudaSetDevice(self, device: int) -> tuple[cudaError_t]:
        error = self._enter("cudaSetDevice")
        if error is OK:
            self._current.device = int(device)
        return (error,)

    def cudaPointerGetAttributes(self, address: int) -> tuple[cudaError_t, Any]:
        with self._lock:
            error = self._enter("cudaPointerGetAttributes")
            known = self.on_device(address, 1)
            kind = cudaMemoryType.cudaMemoryTypeDevice if known else cudaMemoryType.cudaMemoryTypeUnregistered
            return error, SimpleNamespace(type=kind, device=int(address in self._elsewhere))

    def cudaGetErrorName(self, error: cudaError_t) -> tuple[cudaError_t, bytes]:
        return OK, cudaError_t(error).name.encode()

    def cudaGetLastError(self) -> tuple[cudaError_t]:
        error, self._last = self._last, OK
        return (error,)

    def cudaMemGetInfo(self) -> tuple[cudaError_t, int, int]:
        return self._enter("cudaMemGetInfo"), 1 << 30, 1 << 33

    def cudaMalloc(self, size: int) -> tuple[cudaError_t, int | None]:
        with self._lock:
            error = self._enter("cudaMalloc", allocates=True)
            return (error, None) if error is not OK else (OK, self._allocate(size))

    def cudaFree(self, address: int) -> tuple[cudaError_t]:
        with self._lock:
            error = self._enter("cudaFree", waits=True)
            if error is not OK:
                return (error,)
            if int(address) not in self._device:
                return (self._violation(f"freed {address:#x}, which is not allocated"),)
            for stream in self._streams.values():  # cudaFree waits for the device
                self._work(stream)
            del self._device[int(address)]
            return (OK,)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[cudaError_t, int | None]:
        with self._lock:
            error = self._enter("cudaHostAlloc", allocates=True)
            if error is not OK:
                return error, None
            buffer = np.full(size, POISON, np.uint8)
            self._pinned[buffer.ctypes.data] = buffer
            return OK, buffer.ctypes.data

    def cudaFreeHost(self, address: int) -> tuple[cudaError_t]:
        with self._lock:
            error = self._enter("cudaFreeHost", waits=True)
            if error is not OK:
                return (error,)
            buffer = self._pinned.pop(int(address), None)
            if buffer is None:
                return (self._violation("freed host memory that is not pinned"),)
            buffer[:] = POISON
            self._freed_pinned.append(buffer)  # kept, so that a write after this is seen
            return (OK,)

    def cudaMemcpy(self, to: int, source: int, size: int, kind: cudaMemcpyKind) -> tuple[cudaError_t]:
        with self._lock:
            error = self._enter("cudaMemcpy", waits=True)
            if error is not OK:
                return (error,)
            legacy = self._streams[1]
            self._put(legacy, self._copy(to, source, size, kind))
            return (OK if kind is cudaMemcpyKind.cudaMemcpyHostToDevice else self._work(legacy),)

    def cudaMemcpyAsync(
        self, to: int, source: int, size: int, kind: cudaMemcpyKind, stream: Any
    ) -> tuple[cudaError_t]:
        with self._lock:
            error, found = self._enter_stream("cudaMemcpyAsync", stream)
            if found is None or error is not OK:
                return (error,)
            self._put(found, self._copy(int(to), int(source), size, kind))
            return (OK,)

    def cudaMemsetAsync(self, to: int, value: int, size: int, stream: Any) -> tuple[cudaError_t]:
        with self._lock:
            error, found = self._enter_stream("cudaMemsetAsync", stream)
            if found is None or error is not OK:
                return (error,)

            def fill() -> None:
                self._span(to, size)[:] = value

            self._put(found, fill)
            return (OK,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[cudaError_t, Handle | None]:
        with self._lock:
            error = self._enter("cudaStreamCreateWithFlags", allocates=True)
            return (error, None) if error is not OK else (OK, self._keep(self._streams, Stream()))

    def cudaStreamDestroy(self, stream: Any) -> tuple[cudaError_t]:
        return self._destroy("cudaStreamDestroy", self._streams, stream)

    def cudaStreamSynchronize(self, stream: Any) -> tuple[cudaError_t]:
        with self._lock:
            error, found = self._enter_stream("cudaStreamSynchronize", stream, waits=True)
            return (error if found is None or error is not OK else self._work(found),)

    def cudaStreamQuery(self, stream: Any) -> tuple[cudaError_t]:
        with self._lock:
            error, found = self._enter_stream("cudaStreamQuery", stream, waits=True)
            if found is None or error is not OK:
                return (error,)
            self._queries[int(stream)] += 1
            if found.queue and (self.hangs or self._queries[int(stream)] <= self.patience):
                return (cudaError_t.cudaErrorNotReady,)
            self._queries[int(stream)] = 0
            return (self._work(found),)

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[cudaError_t, Handle | None]:
        with self._lock:
            error = self._enter("cudaEventCreateWithFlags", allocates=True)
            return (error, None) if error is not OK else (OK, self._keep(self._events, Event()))

    def cudaEventDestroy(self, event: Any) -> tuple[cudaError_t]:
        return self._destroy("cudaEventDestroy", self._events, event)

    def cudaEventRecord(self, event: Any, stream: Any) -> tuple[cudaError_t]:
        with self._lock:
            error, found = self._enter_stream("cudaEventRecord", stream)
            if found is None or error is not OK:
                return (error,)
            known = self._events[int(event)]
            known.stream, known.done = found, False

            def happen() -> None:
                known.done = True

            self._put(found, happen)
            return (OK,)

    def cudaStreamWaitEvent(self, stream: Any, event: Any, flags: int) -> tuple[cudaError_t]:
        with self._lock:
            error, found = self._enter_stream("cudaStreamWaitEvent", stream)
            if found is None or error is not OK:
                return (error,)
            known = self._events[int(event)]

            def wait() -> None:
                while not known.done and known.stream is not None:
                    known.stream.queue.pop(0)()

            self._put(found, wait)
            return (OK,)

    def cudaStreamBeginCapture(self, stream: Any, mode: cudaStreamCaptureMode) -> tuple[cudaError_t]:
        with self._lock:
            error, found = self._enter_stream("cudaStreamBeginCapture", stream)
            if found is None or error is not OK:
                return (error,)
            found.capture = Capture(threading.get_ident(), mode)
            return (OK,)

    def cudaStreamEndCapture(self, stream: Any) -> tuple[cudaError_t, Handle | None]:
        with self._lock:
            error, found = self._enter_stream("cudaStreamEndCapture", stream)
            if found is None or found.capture is None or error is not OK:
                return error, None
            capture, found.capture = found.capture, None
            if self.refuses_capture or not capture.valid:
                return cudaError_t.cudaErrorStreamCaptureInvalidated, None
            return OK, self._keep(self._graphs, capture.work)

    def cudaGraphInstantiateWithFlags(self, graph: Any, flags: int) -> tuple[cudaError_t, Handle | None]:
        with self._lock:
            error = self._enter("cudaGraphInstantiateWithFlags", allocates=True)
            if error is not OK:
                return error, None
            return OK, self._keep(self._execs, list(self._graphs[int(graph)]))

    def cudaGraphDestroy(self, graph: Any) -> tuple[cudaError_t]:
        return self._destroy("cudaGraphDestroy", self._graphs, graph)

    def cudaGraphExecDestroy(self, graph: Any) -> tuple[cudaError_t]:
        return self._destroy("cudaGraphExecDestroy", self._execs, graph)

    def cudaGraphLaunch(self, graph: Any, stream: Any) -> tuple[cudaError_t]:
        with self._lock:
            error, found = self._enter_stream("cudaGraphLaunch", stream)
            if found is None or error is not OK:
                return (error,)
            if int(graph) not in self._execs:
                return (self._violation("launched a graph that was destroyed"),)
            for work in self._execs[int(graph)]:
                self._put(found, work)
            return (OK,)


@contextmanager
def simulated(gpu: Gpu | None = None) -> Iterator[Gpu]:
    """Put a simulated GPU behind ``cuda.bindings``; what ran on it must have followed the rules."""
    made = gpu or Gpu()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cuda.bindings.runtime", made.bindings)
        patch.setitem(sys.modules, "cuda.bindings.driver", made.driver)
        yield made
