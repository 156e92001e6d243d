"""The rules that the simulated GPU of :mod:`tests.fake_cuda` obeys; CUDA's codes, handles and streams."""

from __future__ import annotations

import ctypes
import enum
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np

_FIRST_ADDRESS = 0x7_0000_0000_0000
_GAP = 1 << 20
POISON = 0xFF  # four of them are a NaN


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


class cudaMemoryType(enum.IntEnum):
    cudaMemoryTypeUnregistered = 0
    cudaMemoryTypeHost = 1
    cudaMemoryTypeDevice = 2
    cudaMemoryTypeManaged = 3


class cudaDeviceAttr(enum.IntEnum):
    cudaDevAttrMultiProcessorCount = 16
    cudaDevAttrComputeCapabilityMajor = 75
    cudaDevAttrComputeCapabilityMinor = 76


Work = Callable[[], None]
OK = cudaError_t.cudaSuccess


def simulated_module(name: str, **members: Any) -> ModuleType:
    """Make a module; others ask `sys.modules` for the specification of what they find there."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    vars(module).update(members)
    return module


class Handle:
    """What the bindings give for a stream, an event or a graph: no number, but ``int()`` gives one."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __int__(self) -> int:
        return self._number


@dataclass
class Stream:
    queue: list[Work] = field(default_factory=list)
    capture: Capture | None = None


@dataclass
class Capture:
    thread: int
    mode: cudaStreamCaptureMode
    work: list[Work] = field(default_factory=list)
    valid: bool = True


@dataclass
class Event:
    stream: Stream | None = None
    done: bool = True


class Fault(Exception):
    """A rule was broken while queued work was done."""


class Rules:
    """What is allocated, queued and captured, and whether a call is allowed."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.calls: Counter[str] = Counter()
        self.patience, self.hangs, self.refuses_capture = 1, False, False
        self.lost, self._last = False, OK
        self._lose_in = self._refuse_in = -1
        self._lock = threading.RLock()
        self._next = _FIRST_ADDRESS
        self._device: dict[int, np.ndarray] = {}
        self._elsewhere: set[int] = set()  # addresses on device 1
        self._current = threading.local()
        self._pinned: dict[int, np.ndarray] = {}
        self._freed_pinned: list[np.ndarray] = []
        self._streams: dict[int, Stream] = {1: Stream()}  # 1: the legacy default stream
        self._events: dict[int, Event] = {}
        self._graphs: dict[int, list[Work]] = {}
        self._execs: dict[int, list[Work]] = {}
        self._queries: Counter[int] = Counter()
        self._with_context: set[int] = set()  # threads in which the runtime made a context

    @property
    def current(self) -> int:
        """The device that this thread's calls go to; device 1 is another that is never to be used."""
        return int(getattr(self._current, "device", 0))

    def _enter(self, name: str, *, allocates: bool = False, waits: bool = False) -> cudaError_t:
        with self._lock:
            self.calls[name] += 1
            if self._lose_in == 0:
                self.lost = True
            self._lose_in -= 1
            if self.lost:
                return cudaError_t.cudaErrorLaunchFailure
            if self.current and (allocates or name == "enqueue"):
                return self._violation(f"{name} while device {self.current} was the thread's")
            for stream in self._streams.values():
                capture = stream.capture
                if capture and (allocates or waits):
                    everyone = capture.mode is cudaStreamCaptureMode.cudaStreamCaptureModeGlobal
                    if everyone or capture.thread == threading.get_ident():
                        capture.valid = False
                        return cudaError_t.cudaErrorStreamCaptureUnsupported
            if allocates:
                self._with_context.add(threading.get_ident())
                self.calls["allocation"] += 1
                self._refuse_in -= 1
                if self._refuse_in == -1:
                    self._last = cudaError_t.cudaErrorMemoryAllocation
                    return cudaError_t.cudaErrorMemoryAllocation
            return OK

    def _enter_stream(
        self, name: str, stream: Any, *, waits: bool = False
    ) -> tuple[cudaError_t, Stream | None]:
        error = self._enter(name, waits=waits)
        if error is not OK:
            return error, None
        self._with_context.add(threading.get_ident())
        found = self._streams.get(int(stream))
        return (OK, found) if found else (cudaError_t.cudaErrorInvalidResourceHandle, None)

    def _keep(self, table: dict[int, Any], item: Any) -> Handle:
        self._next += _GAP
        table[self._next] = item
        return Handle(self._next)

    def _destroy(
        self, name: str, table: dict[int, Any], handle: Any, *, waits: bool = False
    ) -> tuple[cudaError_t]:
        with self._lock:
            error = self._enter(name, waits=waits)
            if error is not OK:
                return (error,)
            found = table.get(int(handle))
            if found is None:
                return (self._violation(f"{name} of what is none any more"),)
            if isinstance(found, Stream):
                self._work(found)
            del table[int(handle)]
            return (OK,)

    def _allocate(self, size: int) -> int:
        self._next += _GAP + size
        address = self._next - self._next % 256
        self._device[address] = np.full(size, POISON, np.uint8)
        return address

    def _span(self, address: int, size: int, *, strict: bool = True) -> np.ndarray:
        for first, memory in self._device.items():
            if first <= address and address + size <= first + len(memory):
                return memory[address - first : address - first + size]
        if strict:
            self._violation(f"{size} bytes at {address:#x} are not allocated on the device")
        raise Fault

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
            raise Fault
        for freed in self._freed_pinned:
            if freed.ctypes.data <= address < freed.ctypes.data + len(freed):
                self._violation("a copy used pinned memory that was freed")
                raise Fault
        return np.frombuffer((ctypes.c_ubyte * size).from_address(address), np.uint8)

    def _put(self, stream: Stream, work: Work) -> None:
        (stream.queue if stream.capture is None else stream.capture.work).append(work)

    def _work(self, stream: Stream) -> cudaError_t:
        while stream.queue:
            error = self._do(stream.queue.pop(0))
            if error is not OK:
                return error
        return OK

    def _do(self, work: Work) -> cudaError_t:
        try:
            work()
        except Fault:
            return cudaError_t.cudaErrorIllegalAddress
        return OK

    def _violation(self, what: str) -> cudaError_t:
        self.violations.append(what)
        self.lost = True
        return cudaError_t.cudaErrorIllegalAddress
