"""A GPU made of NumPy arrays that obeys the rules of CUDA strictly, for tests on machines without one.

It offers the functions of ``cuda.bindings.runtime`` that the product uses, with their signatures and return
codes. What real hardware forgives now and then is a failure here, every time:

- Device memory is a table of its own. Its addresses mean nothing to the host, are never used twice, and hold
  NaN until they are written. Using freed memory, freeing twice, and a copy beyond an allocation are recorded
  in :attr:`Gpu.violations`, and the device is lost.
- A stream queues its work and does it only when something waits for it. A missing wait gives wrong numbers.
- A copy reads its source when it is done, not when it is queued: a host buffer that is used again too early
  gives wrong numbers.
- While a stream is captured, work is recorded and not done; allocating, freeing and waiting in that thread
  invalidates the capture. A launched graph does the recorded work again, on the recorded addresses.

Errors are injected: out of memory at the k-th allocation, the device lost at the k-th call. It shows that
code follows the rules. It shows nothing of a real GPU's numbers or speed.
"""

from __future__ import annotations

import ctypes
import enum
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

_FIRST_ADDRESS = 0x7_0000_0000_0000
_GAP = 1 << 20
_POISON = 0xFF  # four of them are a NaN


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInvalidDevicePointer = 17
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorInvalidResourceHandle = 400
    cudaErrorNotReady = 600
    cudaErrorIllegalAddress = 700
    cudaErrorLaunchFailure = 719
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToHost = 0
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1
    cudaStreamCaptureModeRelaxed = 2


class cudaDeviceAttr(enum.IntEnum):
    cudaDevAttrMultiProcessorCount = 16
    cudaDevAttrComputeCapabilityMajor = 75
    cudaDevAttrComputeCapabilityMinor = 76


Work = Callable[[], None]
OK = cudaError_t.cudaSuccess


class Handle:
    """What the bindings give for a stream, an event or a graph: no number, but ``int()`` gives one."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __int__(self) -> int:
        return self._number


@dataclass
class _Stream:
    queue: list[Work] = field(default_factory=list)
    capture: _Capture | None = None


@dataclass
class _Capture:
    thread: int
    mode: cudaStreamCaptureMode
    work: list[Work] = field(default_factory=list)
    valid: bool = True


@dataclass
class _Event:
    stream: _Stream | None = None
    done: bool = True


class _Fault(Exception):
    """A rule was broken while queued work was done."""


class Gpu:
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
        self.violations: list[str] = []
        self.calls: Counter[str] = Counter()
        self.patience, self.hangs, self.refuses_capture = 1, False, False
        self.lost, self._last = False, OK
        self._lose_in = self._refuse_in = -1
        self._lock = threading.RLock()
        self._next = _FIRST_ADDRESS
        self._device: dict[int, np.ndarray] = {}
        self._pinned: dict[int, np.ndarray] = {}
        self._freed_pinned: list[np.ndarray] = []
        self._streams: dict[int, _Stream] = {1: _Stream()}  # 1: the legacy default stream
        self._events: dict[int, _Event] = {}
        self._graphs: dict[int, list[Work]] = {}
        self._execs: dict[int, list[Work]] = {}
        self._queries: Counter[int] = Counter()

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
            self._device, self._pinned, self._events, self._graphs, self._execs
        )  # fmt: skip
        return sum(map(len, tables)) + len(self._streams) - 1

    def assert_clean(self) -> None:
        """Fail where a rule was broken or something was not given back; a lost device takes all with it."""
        assert not self.violations, self.violations
        assert all((buffer == _POISON).all() for buffer in self._freed_pinned), "written after it was freed"
        if not self.lost:
            assert self.held == 0, f"{self.held} resources were not given back"

    def array(self, values: np.ndarray) -> int:
        """Put an array on the device as another library would; return its address."""
        address = self._allocate(values.nbytes)
        self.write(address, values)
        return address

    def release(self, address: int) -> None:
        """Free what :meth:`array` gave."""
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
        except _Fault:
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
        """Allocate for a library; None where there is no memory."""
        error, address = self.cudaMalloc(size)
        return address if error is OK else None

    def give(self, address: int) -> None:
        """Free for a library, whose destructors report nothing."""
        self.cudaFree(address)

    # The functions of cuda.bindings.runtime

    @property
    def bindings(self) -> SimpleNamespace:
        """The module ``cuda.bindings.runtime``."""
        names = [name for name in dir(self) if name.startswith("cuda")]
        types = (cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode, cudaDeviceAttr)
        return SimpleNamespace(
            cudaStream_t=Handle, cudaStreamNonBlocking=1, cudaEventDisableTiming=2, cudaHostAllocDefault=0,
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

    def cudaGetErrorName(self, error: cudaError_t) -> tuple[cudaError_t, bytes]:
        return OK, cudaError_t(error).name.encode()

    def cudaGetLastError(self) -> tuple[cudaError_t]:
        error, self._last = self._last, OK
        return (cudaError_t.cudaErrorLaunchFailure if self.lost else error,)

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
            buffer = np.full(size, _POISON, np.uint8)
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
            buffer[:] = _POISON
            self._freed_pinned.append(buffer)  # kept, so that a write after this is seen
            return (OK,)

    def cudaMemcpy(self, to: int, source: int, size: int, kind: cudaMemcpyKind) -> tuple[cudaError_t]:
        with self._lock:
            error = self._enter("cudaMemcpy", waits=True)
            return (error if error is not OK else self._do(self._copy(to, source, size, kind)),)

    def cudaMemcpyAsync(
        self, to: int, source: int, size: int, kind: cudaMemcpyKind, stream: Any
    ) -> tuple[cudaError_t]:
        with self._lock:
            error, found = self._enter_stream("cudaMemcpyAsync", stream)
            if found is None or error is not OK:
                return (error,)
            self._put(found, self._copy(int(to), int(source), size, kind))
            return (OK,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[cudaError_t, Handle | None]:
        with self._lock:
            error = self._enter("cudaStreamCreateWithFlags", allocates=True)
            return (error, None) if error is not OK else (OK, self._keep(self._streams, _Stream()))

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
            return (error, None) if error is not OK else (OK, self._keep(self._events, _Event()))

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
            found.capture = _Capture(threading.get_ident(), mode)
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

    # Rules

    def _enter(self, name: str, *, allocates: bool = False, waits: bool = False) -> cudaError_t:
        with self._lock:
            self.calls[name] += 1
            if self._lose_in == 0:
                self.lost = True
            self._lose_in -= 1
            if self.lost:
                return cudaError_t.cudaErrorLaunchFailure
            for stream in self._streams.values():
                capture = stream.capture
                if capture and (allocates or waits):
                    everyone = capture.mode is cudaStreamCaptureMode.cudaStreamCaptureModeGlobal
                    if everyone or capture.thread == threading.get_ident():
                        capture.valid = False
                        return cudaError_t.cudaErrorStreamCaptureUnsupported
            if allocates:
                self.calls["allocation"] += 1
                self._refuse_in -= 1
                if self._refuse_in == -1:
                    self._last = cudaError_t.cudaErrorMemoryAllocation
                    return cudaError_t.cudaErrorMemoryAllocation
            return OK

    def _enter_stream(
        self, name: str, stream: Any, *, waits: bool = False
    ) -> tuple[cudaError_t, _Stream | None]:
        error = self._enter(name, waits=waits)
        if error is not OK:
            return error, None
        found = self._streams.get(int(stream))
        return (OK, found) if found else (cudaError_t.cudaErrorInvalidResourceHandle, None)

    def _keep(self, table: dict[int, Any], item: Any) -> Handle:
        self._next += _GAP
        table[self._next] = item
        return Handle(self._next)

    def _destroy(self, name: str, table: dict[int, Any], handle: Any) -> tuple[cudaError_t]:
        with self._lock:
            error = self._enter(name)
            if error is not OK:
                return (error,)
            found = table.get(int(handle))
            if found is None:
                return (self._violation(f"{name} of what is none any more"),)
            if isinstance(found, _Stream):
                self._work(found)
            del table[int(handle)]
            return (OK,)

    def _allocate(self, size: int) -> int:
        self._next += _GAP + size
        address = self._next - self._next % 256
        self._device[address] = np.full(size, _POISON, np.uint8)
        return address

    def _span(self, address: int, size: int, *, strict: bool = True) -> np.ndarray:
        for first, memory in self._device.items():
            if first <= address and address + size <= first + len(memory):
                return memory[address - first : address - first + size]
        if strict:
            self._violation(f"{size} bytes at {address:#x} are not allocated on the device")
        raise _Fault

    def _copy(self, to: int, source: int, size: int, kind: cudaMemcpyKind) -> Work:
        def copy() -> None:
            if kind is cudaMemcpyKind.cudaMemcpyHostToDevice:
                self._span(to, size)[:] = self._host(source, size)
            elif kind is cudaMemcpyKind.cudaMemcpyDeviceToHost:
                self._host(to, size)[:] = self._span(source, size)
            else:
                self._span(to, size)[:] = self._span(source, size)

        return copy

    def _host(self, address: int, size: int) -> np.ndarray:
        if address >= _FIRST_ADDRESS:
            self._violation("a device address was used as the host's")
            raise _Fault
        for freed in self._freed_pinned:
            if freed.ctypes.data <= address < freed.ctypes.data + len(freed):
                self._violation("a copy used pinned memory that was freed")
                raise _Fault
        return np.frombuffer((ctypes.c_ubyte * size).from_address(address), np.uint8)

    def _put(self, stream: _Stream, work: Work) -> None:
        (stream.queue if stream.capture is None else stream.capture.work).append(work)

    def _work(self, stream: _Stream) -> cudaError_t:
        while stream.queue:
            error = self._do(stream.queue.pop(0))
            if error is not OK:
                return error
        return OK

    def _do(self, work: Work) -> cudaError_t:
        try:
            work()
        except _Fault:
            return cudaError_t.cudaErrorIllegalAddress
        return OK

    def _violation(self, what: str) -> cudaError_t:
        self.violations.append(what)
        self.lost = True
        return cudaError_t.cudaErrorIllegalAddress


@contextmanager
def simulated(gpu: Gpu | None = None) -> Iterator[Gpu]:
    """Put a simulated GPU behind ``cuda.bindings.runtime``; what ran on it must have followed the rules."""
    made = gpu or Gpu()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cuda.bindings.runtime", made.bindings)
        yield made
