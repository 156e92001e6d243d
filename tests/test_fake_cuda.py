"""The simulated GPU is strict: what breaks a rule of CUDA is seen, each time."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from tests.fake_cuda import Gpu
from tests.fake_cuda_rules import cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode

TO_DEVICE, TO_HOST = cudaMemcpyKind.cudaMemcpyHostToDevice, cudaMemcpyKind.cudaMemcpyDeviceToHost
OK = cudaError_t.cudaSuccess
THIS_THREAD = cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal


@pytest.fixture
def gpu() -> Gpu:
    return Gpu()


@pytest.fixture
def stream(gpu: Gpu) -> Any:
    return gpu.cudaStreamCreateWithFlags(1)[1]


def host(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)


def test_work_is_done_when_something_waits_for_it(gpu: Gpu, stream: Any) -> None:
    source, target = host([1, 2]), host([0, 0])
    _, memory = gpu.cudaMalloc(8)
    gpu.cudaMemcpyAsync(memory, source.ctypes.data, 8, TO_DEVICE, stream)
    gpu.cudaMemcpyAsync(target.ctypes.data, memory, 8, TO_HOST, stream)
    assert target.tolist() == [0, 0], "nobody waited"
    source[0] = 5  # too early: the copy has not been done
    assert gpu.cudaStreamSynchronize(stream) == (OK,)
    assert target.tolist() == [5, 2]


def test_a_copy_of_memory_that_is_not_pinned_may_come_later(gpu: Gpu, stream: Any) -> None:
    source, target = host([1, 2]), host([0, 0])
    _, memory = gpu.cudaMalloc(8)
    gpu.cudaMemcpy(memory, source.ctypes.data, 8, TO_DEVICE)
    gpu.cudaMemcpyAsync(target.ctypes.data, memory, 8, TO_HOST, stream)
    gpu.cudaStreamSynchronize(stream)
    assert np.isnan(target).all(), "the other stream did not wait for it"
    gpu.cudaStreamSynchronize(1)
    gpu.cudaMemcpyAsync(target.ctypes.data, memory, 8, TO_HOST, stream)
    gpu.cudaStreamSynchronize(stream)
    assert target.tolist() == [1, 2]


def test_allocating_on_another_device_is_seen(gpu: Gpu) -> None:
    gpu.cudaSetDevice(1)
    gpu.cudaMalloc(8)
    assert gpu.violations == ["cudaMalloc while device 1 was the thread's"]


def test_memory_that_was_not_written_is_no_number(gpu: Gpu) -> None:
    target = host([0])
    _, memory = gpu.cudaMalloc(4)
    gpu.cudaMemcpy(target.ctypes.data, memory, 4, TO_HOST)
    assert np.isnan(target[0])


def test_what_is_freed_is_gone(gpu: Gpu, stream: Any) -> None:
    _, memory = gpu.cudaMalloc(4)
    assert gpu.cudaFree(memory) == (OK,)
    gpu.cudaMemcpyAsync(memory, host([1]).ctypes.data, 4, TO_DEVICE, stream)
    assert gpu.cudaStreamSynchronize(stream) == (cudaError_t.cudaErrorIllegalAddress,)
    assert gpu.lost
    with pytest.raises(AssertionError, match="not allocated"):
        gpu.assert_clean()


@pytest.mark.parametrize("rule", ["twice", "beyond", "host", "leak", "pinned"])
def test_a_broken_rule_is_recorded(gpu: Gpu, rule: str) -> None:
    _, memory = gpu.cudaMalloc(4)
    assert memory is not None
    if rule == "twice":
        gpu.cudaFree(memory)
        gpu.cudaFree(memory)
    elif rule == "beyond":
        gpu.cudaMemcpy(memory, host([1, 2]).ctypes.data, 8, TO_DEVICE)
    elif rule == "host":
        gpu.cudaMemcpy(memory, memory, 4, TO_DEVICE)
    elif rule == "pinned":
        _, address = gpu.cudaHostAlloc(4, 0)
        assert address is not None
        gpu.cudaFreeHost(address)
        gpu.cudaMemcpy(memory, address, 4, TO_DEVICE)
    with pytest.raises(AssertionError):
        gpu.assert_clean()


def test_pinned_memory_written_after_it_was_freed_is_seen(gpu: Gpu) -> None:
    import ctypes

    _, address = gpu.cudaHostAlloc(4, 0)
    assert address is not None
    gpu.cudaFreeHost(address)
    gpu.assert_clean()
    ctypes.memset(address, 1, 4)
    with pytest.raises(AssertionError, match="after it was freed"):
        gpu.assert_clean()


def test_a_graph_does_the_recorded_work_again_on_the_same_addresses(gpu: Gpu, stream: Any) -> None:
    source, target = host([1]), host([0])
    _, memory = gpu.cudaMalloc(4)
    gpu.cudaStreamBeginCapture(stream, THIS_THREAD)
    gpu.cudaMemcpyAsync(memory, source.ctypes.data, 4, TO_DEVICE, stream)
    gpu.cudaMemcpyAsync(target.ctypes.data, memory, 4, TO_HOST, stream)
    error, graph = gpu.cudaStreamEndCapture(stream)
    gpu.cudaStreamSynchronize(stream)
    assert error is OK
    assert target[0] == 0, "what is recorded is not done"
    _, launched = gpu.cudaGraphInstantiateWithFlags(graph, 0)
    for value in (3.0, 4.0):
        source[0] = value
        gpu.cudaGraphLaunch(launched, stream)
        gpu.cudaStreamSynchronize(stream)
        assert target[0] == value
    gpu.cudaFree(memory)
    gpu.cudaGraphLaunch(launched, stream)
    assert gpu.cudaStreamSynchronize(stream) == (cudaError_t.cudaErrorIllegalAddress,)


@pytest.mark.parametrize("call", ["cudaMalloc", "cudaStreamSynchronize", "cudaStreamQuery", "cudaHostAlloc"])
def test_a_capture_forbids_allocating_and_waiting(gpu: Gpu, stream: Any, call: str) -> None:
    gpu.cudaStreamBeginCapture(stream, THIS_THREAD)
    arguments = {"cudaMalloc": (4,), "cudaHostAlloc": (4, 0)}.get(call, (stream,))
    assert getattr(gpu, call)(*arguments)[0] is cudaError_t.cudaErrorStreamCaptureUnsupported
    assert gpu.cudaStreamEndCapture(stream) == (cudaError_t.cudaErrorStreamCaptureInvalidated, None)


def test_an_event_makes_one_stream_wait_for_another(gpu: Gpu, stream: Any) -> None:
    other = gpu.cudaStreamCreateWithFlags(1)[1]
    done: list[str] = []
    event = gpu.cudaEventCreateWithFlags(2)[1]
    gpu.queue(int(other), lambda: done.append("first"))
    gpu.cudaEventRecord(event, other)
    gpu.queue(int(other), lambda: done.append("later"))
    gpu.cudaStreamWaitEvent(stream, event, 0)
    gpu.queue(int(stream), lambda: done.append("second"))
    gpu.cudaStreamSynchronize(stream)
    assert done == ["first", "second"]


def test_a_query_says_not_ready_before_it_is(gpu: Gpu, stream: Any) -> None:
    gpu.queue(int(stream), lambda: None)
    assert gpu.cudaStreamQuery(stream) == (cudaError_t.cudaErrorNotReady,)
    assert gpu.cudaStreamQuery(stream) == (OK,)


def test_faults_come_where_they_were_asked_for(gpu: Gpu) -> None:
    gpu.refuse_allocation(1)
    codes = [gpu.cudaMalloc(4)[0] for _ in range(3)]
    assert codes == [OK, cudaError_t.cudaErrorMemoryAllocation, OK]
    assert gpu.cudaGetLastError() == (cudaError_t.cudaErrorMemoryAllocation,)
    assert gpu.cudaGetLastError() == (OK,)
    gpu.refuse_allocation(0)
    assert gpu.take(4) is None
    assert gpu.cudaGetLastError() == (OK,), "a library's fault is its own runtime's"
    gpu.lose_device(1)
    codes = [gpu.cudaMalloc(4)[0] for _ in range(3)]
    assert codes == [OK, cudaError_t.cudaErrorLaunchFailure, cudaError_t.cudaErrorLaunchFailure]
    gpu.assert_clean()


COPY = """\
.version 6.0
.target sm_70
.address_size 64

.visible .entry copy(
    .param .u64 values,
    .param .u32 count,
    .param .u64 to
)
{
    .reg .b32 %r<2>;
    .reg .b64 %a<5>;

    ld.param.u64 %a0, [values];
    ld.param.u64 %a1, [to];
    mov.u32 %r0, %tid.x;
    mul.wide.u32 %a2, %r0, 4;
    add.u64 %a3, %a0, %a2;
    add.u64 %a4, %a1, %a2;
    ld.global.u32 %r1, [%a3];
    st.global.u32 [%a4], %r1;
    ret;
}
"""


def launch(gpu: Gpu, stream: Any, threads: int, values: int, to: int, text: str = COPY) -> Any:
    """Load the kernel and queue it."""
    driver = gpu.driver
    error, kernels = driver.cuModuleLoadData(text.encode() + b"\0")
    if error:
        return error
    _, function = driver.cuModuleGetFunction(kernels, b"copy")
    types = (ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint64)
    given = (function, 1, 1, 1, threads, 1, 1, 0, stream, ((values, threads, to), types), 0)
    return driver.cuLaunchKernel(*given)[0]


def test_a_kernel_is_queued_and_executed_as_its_text_says(gpu: Gpu, stream: Any) -> None:
    source, to = gpu.array(host([1, 2, 3])), gpu.array(host([0, 0, 0]))
    assert launch(gpu, stream, 2, source, to) == 0
    assert gpu.read(to, (3,), np.dtype(np.float32)).tolist() == [0, 0, 0], "nobody waited"
    gpu.cudaStreamSynchronize(stream)
    assert gpu.read(to, (3,), np.dtype(np.float32)).tolist() == [1, 2, 0]


@pytest.mark.parametrize("wrong", ["beyond", "odd"])
def test_a_kernel_that_reads_what_it_must_not_is_seen(gpu: Gpu, stream: Any, wrong: str) -> None:
    source, to = gpu.array(host([1, 2, 3])), gpu.array(np.zeros(99, np.float32))
    launch(gpu, stream, *((4, source) if wrong == "beyond" else (2, source + 2)), to)
    assert gpu.cudaStreamSynchronize(stream) == (cudaError_t.cudaErrorIllegalAddress,)
    assert gpu.lost
    assert gpu.violations


def test_a_kernel_needs_a_context(gpu: Gpu) -> None:
    assert launch(gpu, 1, 1, 8, 8) == 201, "no call of the runtime was made in this thread"


@pytest.mark.parametrize(
    ("right", "other"),
    [
        ("mul.wide.u32", "mul.hi.u32"),
        ("%tid.x", "%tid.y"),
        ("%r1;", "%r2;"),
        ("    ret;\n", ""),
        ("sm_70", "sm_90"),
        (".param .u32 count", ".param .f32 count"),
    ],
)
def test_what_the_interpreter_does_not_know_is_no_kernel(
    gpu: Gpu, stream: Any, right: str, other: str
) -> None:
    with pytest.raises((NotImplementedError, AssertionError)):
        launch(gpu, stream, 1, 8, 8, COPY.replace(right, other))
