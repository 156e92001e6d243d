"""What is no number, found where it lies: in memory of the device, without a copy to the host.

The kernel (:mod:`finite_kernel`) is compiled by the driver of this very machine, so it proves itself on this
device before anything relies on it.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.backends import Array
from promptray.runtime.backends.cuda import Cuda
from promptray.runtime.backends.cuda_resources import Memory, Stream
from promptray.runtime.backends.finite_kernel import BLOCK, ENTRIES, PTX
from promptray.runtime.backends.kernels import Kernels
from promptray.runtime.errors import ScoringError

#: The type of a flag: 0, or 1 where something is no number.
FLAG = np.dtype(np.uint32)


class FiniteCheck:
    """Looks through memory of the device for NaN and infinity. Thread-safe, as :class:`Kernels` is.

    Parameters
    ----------
    cuda : Cuda

    Raises
    ------
    ScoringError
        ``backend.failed`` where the kernel gives a wrong answer on this device; ``backend.unavailable``
        where it cannot be compiled; ``backend.out-of-memory``, ``backend.device-lost``.
    """

    def __init__(self, cuda: Cuda) -> None:
        cases = list(_cases())
        content = np.concatenate([case.content for case in cases])
        values = cuda.upload(content)  # before the kernel is loaded: this makes the context for it
        self._kernels = Kernels(cuda, PTX, list(ENTRIES.values()))
        self._prove(cuda, cases, values)
        del values
        cuda.collect()

    def _prove(self, cuda: Cuda, cases: Sequence[_Case], values: Memory) -> None:
        """Let the kernel answer what is known."""
        flags = cuda.upload(np.zeros(len(cases), FLAG))
        stream, found = cuda.stream(), cuda.pinned(flags.size)
        place = values.address
        for number, case in enumerate(cases):
            flag = flags.address + number * FLAG.itemsize
            self.enqueue(place, (case.count,), case.dtype, flag, stream)
            place += len(case.content)
        cuda.copy_out(found, flags, flags.size, stream)
        cuda.wait(stream)
        for case, answer in zip(cases, found.bytes.view(FLAG), strict=True):
            if answer != case.answer:
                raise _wrong(cuda.device.title, case, int(answer))

    def enqueue(
        self, address: int, shape: tuple[int, ...], dtype: np.dtype[np.generic], flag: int, stream: Stream
    ) -> None:
        """Queue a look at an array: its flag becomes 1 if a value is NaN or infinite, else it stays.

        Whole numbers need none. In this thread a call of the runtime must have come before.

        Parameters
        ----------
        address : int
            Of the array, contiguous.
        shape : tuple of int
        dtype : dtype
            float32, float16, or whole numbers.
        flag : int
            The flag's address.
        stream : Stream
        """
        if dtype.kind != "f":
            return
        count = math.prod(shape)
        arguments = ((address, ctypes.c_uint64), (count, ctypes.c_uint32), (flag, ctypes.c_uint64))
        self._kernels.launch(ENTRIES[dtype], -(-count // BLOCK), BLOCK, arguments, stream)


@dataclass(frozen=True)
class _Case:
    """Values whose answer is known, for the proof.

    Attributes
    ----------
    what : str
    dtype : dtype
    count : int
        How many values are to be looked at.
    content : uint8 array
        Their bytes, and values behind them that are none: nothing may look there.
    answer : int
    """

    what: str
    dtype: np.dtype[np.generic]
    count: int
    content: NDArray[np.uint8]
    answer: int


def _cases() -> Iterator[_Case]:
    for dtype in ENTRIES:
        bits = np.dtype(f"u{dtype.itemsize}")
        infinity = int(np.array(np.inf, dtype).view(bits))
        minus = 1 << (8 * dtype.itemsize - 1)
        fraction = minus - 1 - infinity
        kinds = [0, 1, fraction, fraction + 1, infinity - 1]  # zero, least, least normal and largest numbers
        numbers = np.array([*kinds, *(minus | each for each in kinds)], bits)
        yield _case("numbers alone", dtype, np.resize(numbers, 3 * BLOCK - 37), 0)
        yield _case("numbers alone, whole blocks", dtype, np.resize(numbers, BLOCK), 0)
        places = {
            "infinity, first": (BLOCK + 1, 0, infinity),
            "minus infinity, last of all": (2 * BLOCK + 1, 2 * BLOCK, minus | infinity),
            "NaN of the least payload, last of a block": (2 * BLOCK, BLOCK - 1, infinity | 1),
            "minus NaN of all bits, alone": (1, 0, minus | infinity | fraction),
            "NaN, in the middle": (BLOCK - 1, 101, infinity | (fraction + 1) // 2),
        }
        for what, (count, place, none) in places.items():
            spoilt = np.resize(numbers, count)
            spoilt[place] = none
            yield _case(what, dtype, spoilt, 1)


def _case(what: str, dtype: np.dtype[np.generic], bits: Array, answer: int) -> _Case:
    content = bits.view(np.uint8)
    behind = np.full(-len(content) % 256 + 256, 0xFF, np.uint8)  # NaN, in any type
    return _Case(f"{dtype}: {what}", dtype, len(bits), np.append(content, behind), answer)


def _wrong(device: str, case: _Case, found: int) -> ScoringError:
    return ScoringError(
        "backend.failed",
        "the GPU does not find what is no number",
        artefact=device,
        expected=f"{case.answer} for {case.count} values ({case.what})",
        found=str(found),
        cure="update NVIDIA's driver, which compiles the check; else report what `promptray doctor` says",
    )
