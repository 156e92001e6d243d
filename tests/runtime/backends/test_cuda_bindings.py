"""The real ``cuda-bindings``: every call is accepted with the arguments it is made with.

Without a driver, or with no GPU to be seen, the bindings still check names, argument counts and types, and
then answer with an error code, those of the driver also by not finding it: what these tests look at. They
show nothing of what a GPU does.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from promptray.runtime.backends import cuda as module
from promptray.runtime.backends import cuda_device, kernels
from tests.fake_cuda import Gpu

#: Calls every method of Cuda on the real bindings; each must end in CUDA's own "no driver" or "no device".
_SCRIPT = """
import ctypes
from cuda.bindings import driver, runtime
from promptray.runtime.backends import cuda as module
from promptray.runtime.backends.cuda import Cuda
from promptray.runtime.backends.cuda_resources import Event, Memory, Pinned, Recorded, Stream
from promptray.runtime.backends.finite_check import FiniteCheck
from promptray.runtime.backends.finite_kernel import ENTRIES, PTX
from promptray.runtime.backends.kernels import Kernels
from promptray.runtime.engines.facts import Device
from promptray.runtime.errors import ScoringError
import numpy as np

try:
    Cuda()
except ScoringError as error:
    print(error.code, error.found)
module.device_facts = lambda runtime: Device(name="none", compute_capability="8.9", multiprocessors=1)
cuda, memory = Cuda(), Memory(4096, 16)
array = np.zeros(16, np.uint8)
pinned = Pinned(array.ctypes.data, 16)
stream, event = Stream(runtime.cudaStream_t(7)), Event(runtime.cudaEvent_t(7))
mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
calls = {
    "memory": lambda: cuda.memory(16), "pinned": lambda: cuda.pinned(16), "stream": cuda.stream,
    "event": cuda.event, "upload": lambda: cuda.upload(array),
    "device of": lambda: cuda.device_of(4096),
    "get device": lambda: cuda.call("cudaGetDevice"), "set device": lambda: cuda.call("cudaSetDevice", 0),
    "copy_in": lambda: cuda.copy_in(memory, pinned, 16, stream),
    "copy_across": lambda: cuda.copy_across(memory, 8192, 16, stream),
    "copy_out": lambda: cuda.copy_out(pinned, memory, 16, stream),
    "launch": lambda: cuda.launch(Recorded(runtime.cudaGraphExec_t(7)), stream),
    "wait": lambda: cuda.wait(stream), "is_done": lambda: cuda.is_done(stream),
    "record event": lambda: cuda.call("cudaEventRecord", event.own, runtime.cudaStream_t(1)),
    "wait event": lambda: cuda.call("cudaStreamWaitEvent", stream.own, event.own, 0),
    "follow": lambda: cuda.follow(stream, 1, event), "record": lambda: cuda.record(stream, lambda: None),
    "begin": lambda: cuda.call("cudaStreamBeginCapture", stream.own, mode),
    "end": lambda: cuda.call("cudaStreamEndCapture", stream.own),
    "instantiate": lambda: cuda.call("cudaGraphInstantiateWithFlags", runtime.cudaGraph_t(7), 0),
    "destroy graph": lambda: cuda.call("cudaGraphDestroy", runtime.cudaGraph_t(7)),
    "destroy exec": lambda: cuda.call("cudaGraphExecDestroy", runtime.cudaGraphExec_t(7)),
    "destroy event": lambda: cuda.call("cudaEventDestroy", event.own),
    "destroy stream": lambda: cuda.call("cudaStreamDestroy", stream.own),
    "memory info": lambda: cuda.call("cudaMemGetInfo"),
    "clear": lambda: cuda.clear(4096, 16, stream),
    "free": lambda: cuda.call("cudaFree", 4096), "free host": lambda: cuda.call("cudaFreeHost", 4096),
}
for name, call in calls.items():
    try:
        call()
    except ScoringError as error:
        print(name, error.code, error.message)
loaded = Kernels.__new__(Kernels)
loaded._cuda, loaded._driver = cuda, driver
loaded._functions = {name: driver.CUfunction(7) for name in ENTRIES.values()}
check = FiniteCheck.__new__(FiniteCheck)
check._kernels = loaded
calls = {
    "load": lambda: Kernels(cuda, PTX, list(ENTRIES.values())),
    "find": lambda: loaded._call("cuModuleGetFunction", driver.CUmodule(7), b"name"),
    "unload": lambda: loaded._call("cuModuleUnload", driver.CUmodule(7)),
    "launch": lambda: check.enqueue(1 << 47, (7, 5), np.dtype(np.float32), 1 << 46, stream),
    "name": lambda: driver.cuGetErrorName(driver.CUresult(3)),
}
for name, call in calls.items():
    try:
        call()
    except ScoringError as error:
        print(name, error.code)
    except RuntimeError:  # there is no driver to be found
        print(name)
"""


def test_every_call_is_accepted_by_the_real_bindings() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    assert first.startswith("backend.unavailable cudaError")
    lines, of_driver = lines[:29], lines[29:]
    assert [line.split()[0] for line in of_driver] == ["load", "find", "unload", "launch", "name"]
    for line in lines:
        assert "backend.failed" in line
        assert "cudaErrorInsufficientDriver (35)" in line or "cudaErrorNoDevice (100)" in line


def _names() -> set[str]:
    """Every name of CUDA that the modules write, as an attribute or as the name of a call."""
    modules = (module, cuda_device, kernels)
    trees = [ast.parse(Path(each.__file__).read_text(encoding="utf-8")) for each in modules]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    names |= {str(node.value) for node in nodes if isinstance(node, ast.Constant)}
    return {name for name in names if re.fullmatch(r"cu(da)?[A-Z]\w+", name)}


def test_every_name_exists_in_the_real_bindings_and_in_the_simulated_ones() -> None:
    from cuda.bindings import driver, runtime

    names = _names()
    assert {
        "cudaMemsetAsync",
        "cuModuleLoadData",
        "cuLaunchKernel",
        "cudaMalloc",
        "cudaGraphLaunch",
        "cudaStreamNonBlocking",
        "cudaMemcpyKind",
        "cudaGetDeviceCount",
    } <= names
    simulated = Gpu().bindings
    members = {
        "cudaMemoryTypeD": "cudaMemoryType",
        "cudaMemoryTypeM": "cudaMemoryType",
        "cudaMemcpyHost": "cudaMemcpyKind",
        "cudaMemcpyDevice": "cudaMemcpyKind",
        "cudaStreamCaptureModeT": "cudaStreamCaptureMode",
        "cudaDevAttr": "cudaDeviceAttr",
    }
    for real, of_driver in ((runtime, driver), (simulated, Gpu().driver)):
        for name in names:
            if not name.startswith("cuda"):
                assert hasattr(of_driver, name)
                continue
            own = next((kind for prefix, kind in members.items() if name.startswith(prefix)), None)
            assert hasattr(getattr(real, own) if own else real, name)


@pytest.mark.parametrize("made_up", ["cudaMallocFaster", "cuLaunchFaster"])
def test_a_made_up_name_is_found_out(monkeypatch: pytest.MonkeyPatch, made_up: str) -> None:
    monkeypatch.setattr(f"{__name__}._names", lambda: {made_up})
    with pytest.raises(AssertionError):
        test_every_name_exists_in_the_real_bindings_and_in_the_simulated_ones()


def test_numbers_of_errors_are_the_real_ones() -> None:
    from cuda.bindings import driver, runtime

    from tests.fake_cuda_rules import cudaError_t

    numbers = {"OUT_OF_MEMORY": 2, "INVALID_CONTEXT": 201, "JIT_COMPILER_NOT_FOUND": 221}
    for name, number in numbers.items():
        assert int(getattr(driver.CUresult, f"CUDA_ERROR_{name}")) == number, "as the runtime's"
    for error in cudaError_t:
        assert int(getattr(runtime.cudaError_t, error.name)) == error
    assert int(runtime.cudaError_t.cudaErrorMemoryAllocation) == module._OUT_OF_MEMORY
    assert int(runtime.cudaError_t.cudaErrorNotReady) == module._NOT_READY
    for name in ("IllegalAddress", "LaunchFailure", "ECCUncorrectable", "HardwareStackError", "Assert"):
        assert int(getattr(runtime.cudaError_t, f"cudaError{name}")) in module._LOST


def test_the_package_is_of_a_version_that_is_supported() -> None:
    assert metadata.version("cuda-bindings").partition(".")[0] in ("12", "13")
