"""What is no number is found on the device: the kernel's own text, executed by the simulator."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptray.runtime.backends import finite_check as module
from promptray.runtime.backends.cuda import Cuda
from promptray.runtime.backends.finite_check import FiniteCheck
from promptray.runtime.backends.finite_kernel import BLOCK, ENTRIES, PTX
from promptray.runtime.bundle import Bundle
from tests.fake_cuda import Gpu, simulated
from tests.runtime.backends.test_tensorrt import Simulated, error_of, open_on_gpu
from tests.simulated_engines import store_engines

#: Bits by type: infinity, the largest number, the least, and NaN of both kinds.
ODD = {
    np.float32: (0x7F800000, 0x7F7FFFFF, 1, 0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0x007FFFFF, 0x00800000, 0),
    np.float16: (0x7C00, 0x7BFF, 1, 0x7C01, 0x7E00, 0x7FFF, 0x03FF, 0x0400, 0),
}


class Device:
    """A simulated GPU with the check, and how to ask it."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu, self.cuda = gpu, Cuda()
        self.check, self.stream = FiniteCheck(self.cuda), self.cuda.stream()

    def finds(self, values: np.ndarray, *, first: int = 0, count: int | None = None) -> bool:
        """Whether something of `count` values from `first` on is found to be none."""
        address, flag = self.gpu.array(values), self.gpu.array(np.zeros(1, np.uint32))
        asked = len(values) - first if count is None else count
        place = address + first * values.itemsize
        self.check.enqueue(place, (asked,), values.dtype, flag, self.stream)
        self.cuda.wait(self.stream)
        (answer,) = self.gpu.read(flag, (1,), np.dtype(np.uint32))
        for each in (address, flag):
            self.gpu.release(each)
        assert answer in (0, 1)
        return bool(answer)


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    with simulated() as gpu:
        made = Device(gpu)
        yield made
        made.cuda.close()
        gpu.assert_clean()


@given(data=st.data())
@pytest.mark.parametrize("kind", list(ODD))
def test_it_finds_exactly_what_numpy_calls_not_finite(
    device: Device, kind: type[np.floating], data: st.DataObject
) -> None:
    """Any bits: payloads of NaN, infinities, subnormals; any number of values, any place."""
    bits = np.dtype(f"u{np.dtype(kind).itemsize}")
    odd = st.tuples(st.sampled_from(ODD[kind]), st.booleans()).map(
        lambda each: each[0] | each[1] << (8 * bits.itemsize - 1)
    )
    values = data.draw(st.lists(st.integers(0, int(np.iinfo(bits).max)) | odd, min_size=1, max_size=20))
    size = data.draw(st.integers(len(values), 3 * BLOCK))
    spread = np.zeros(size, bits)
    spread[data.draw(st.integers(0, size - len(values))) :][: len(values)] = values
    assert device.finds(spread.view(kind)) is not bool(np.isfinite(spread.view(kind)).all())


@pytest.mark.parametrize("kind", list(ODD))
@pytest.mark.parametrize("count", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK, 5 * BLOCK + 3])
def test_it_looks_at_all_values_and_at_no_others(device: Device, kind: type[np.floating], count: int) -> None:
    values = np.full(count + 2, np.nan, kind)
    values[1:-1] = np.finfo(kind).max
    assert not device.finds(values, first=1, count=count)
    for place in (1, count):
        spoilt = values.copy()
        spoilt[place] = -np.inf
        assert device.finds(spoilt, first=1, count=count)


def test_whole_numbers_are_not_looked_at(device: Device) -> None:
    before = device.gpu.calls["cuLaunchKernel"]
    device.check.enqueue(8, (4,), np.dtype(np.int64), 8, device.stream)
    assert device.gpu.calls["cuLaunchKernel"] == before


MISTAKES = [
    ("0x7f800000;", "0x7f000000;"),  # the comparison, so that nothing is found
    ("%r5, 0x7f800000", "%r5, 0x7f000000"),  # the mask: large numbers are taken for none
    ("%r5, 0x7f800000", "%r5, 0xff800000"),  # what is negative is not found
    ("%r5, 0x7c00", "%r5, 0x7e00"),  # infinity is not found
    ("setp.ne.u32", "setp.ge.u32"),
    ("setp.ge.u32 %p0, %r3, %r4", "setp.ge.u32 %p0, %r4, %r3"),
    ("setp.ge.u32 %p0, %r3, %r4", "setp.ge.u32 %p0, %r2, %r4"),  # beyond the last value
    ("mad.lo.u32 %r3, %r0, %r1, %r2", "mov.u32 %r3, %r2"),  # the first block alone
    ("ld.global.u32", "ld.global.u16"),
    ("[%a3], 1", "[%a3], 2"),
]


#: Those that a device does not survive: what it reads then is not the array's.
FATAL = [("%r3, 4;", "%r3, 2;"), ("%r3, 2;", "%r3, 4;")]


@pytest.mark.parametrize(("right", "wrong"), [*MISTAKES, *FATAL])
def test_a_kernel_that_is_wrong_refuses_the_device(
    monkeypatch: pytest.MonkeyPatch, right: str, wrong: str
) -> None:
    text = PTX.replace(right, wrong)
    assert text != PTX
    monkeypatch.setattr(module, "PTX", text)
    with simulated() as gpu:
        cuda = Cuda()
        error = error_of(lambda: FiniteCheck(cuda))
        assert error
        if (right, wrong) in FATAL:
            assert error.code == "backend.device-lost"
            return
        assert error.code == "backend.failed"
        assert "does not find what is no number" in error.message
        assert "driver" in str(error.cure)
        cuda.close()
        gpu.assert_clean()


def test_without_a_sound_kernel_nothing_is_opened(miniature: Bundle, site: Path, tensorrt: Simulated) -> None:
    gpu, _ = tensorrt
    store_engines(miniature, site, gpu)
    gpu.kernels_are_wrong = True
    error = error_of(lambda: open_on_gpu(miniature, site))
    assert error
    assert (error.code, error.found) == ("backend.failed", "0")
    assert "(float32: infinity, first)" in str(error.expected)
    assert gpu.held == 0
    gpu.kernels_are_wrong = False
    with open_on_gpu(miniature, site) as scorer:
        assert scorer.backend.name == "tensorrt"


def test_without_a_compiler_it_is_said_where_that_comes_from(
    miniature: Bundle, site: Path, tensorrt: Simulated
) -> None:
    gpu, _ = tensorrt
    store_engines(miniature, site, gpu)
    gpu.has_compiler = False
    error = error_of(lambda: open_on_gpu(miniature, site))
    assert error
    assert error.code == "backend.unavailable"
    assert "CUDA_ERROR_221" in str(error.found)
    assert "libnvidia-ptxjitcompiler" in str(error.cure)
    assert gpu.held == 0


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="NVIDIA's assembler is not here")
@pytest.mark.parametrize("capability", [75, 80, 86, 87, 89, 90, 100, 110, 120])
def test_nvidias_assembler_takes_the_text(tmp_path: Path, capability: int) -> None:
    source = tmp_path / "kernel.ptx"
    source.write_text(PTX, encoding="ascii")
    done = subprocess.run(
        ["ptxas", f"-arch=sm_{capability}", "--warning-as-error", str(source), "-o", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    if "is not defined for option 'gpu-name'" in done.stderr:
        pytest.skip("an assembler that does not know this GPU")
    assert (done.returncode, done.stderr) == (0, "")
    content = (tmp_path / "out").read_bytes()
    assert all(name.encode() in content for name in ENTRIES.values())
