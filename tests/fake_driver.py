"""The driver's functions that load and launch kernels, on the simulated GPU: it executes their PTX text.

They obey the rules of :mod:`tests.fake_cuda`. One more is theirs: a thread must have called a function of the
runtime before that makes a context, as allocating memory does.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from tests import fake_ptx
from tests.fake_cuda_rules import OK, Fault, Handle, Rules, Work, cudaError_t, simulated_module

_INVALID_CONTEXT, _NO_COMPILER = 201, 221


class Driver(Rules):
    """Modules and kernels.

    Attributes
    ----------
    kernels_are_wrong : bool
        Kernels do nothing, as of a compiler that is broken.
    has_compiler : bool
        Without it, as in a container that has a part of the driver, PTX cannot be loaded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels_are_wrong, self.has_compiler = False, True
        self._modules: dict[int, dict[str, fake_ptx.Function]] = {}
        self._functions: dict[int, fake_ptx.Function] = {}

    @property
    def driver(self) -> ModuleType:
        """The module ``cuda.bindings.driver``."""
        names = (
            "cuModuleLoadData",
            "cuModuleGetFunction",
            "cuModuleUnload",
            "cuLaunchKernel",
            "cuGetErrorName",
        )
        return simulated_module("cuda.bindings.driver", **{name: getattr(self, name) for name in names})

    def cuGetErrorName(self, error: int) -> tuple[int, bytes]:
        return 0, f"CUDA_ERROR_{int(error)}".encode()

    def cuModuleLoadData(self, image: bytes) -> tuple[int, Handle | None]:
        with self._lock:
            error = self._enter_driver("cuModuleLoadData", allocates=True)
            if error:
                return error, None
            if not self.has_compiler:
                return _NO_COMPILER, None
            assert image.endswith(b"\0"), "the text does not end"
            return 0, self._keep(self._modules, fake_ptx.parse(image[:-1].decode("ascii")))

    def cuModuleGetFunction(self, module: Handle, name: bytes) -> tuple[int, Handle | None]:
        with self._lock:
            error = self._enter_driver("cuModuleGetFunction")
            if error:
                return error, None
            return 0, self._keep(self._functions, self._modules[int(module)][name.decode()])

    def cuModuleUnload(self, module: Handle) -> tuple[cudaError_t]:
        return self._destroy("cuModuleUnload", self._modules, module, waits=True)

    def cuLaunchKernel(
        self, function: Handle, x: int, y: int, z: int, threads: int, y_threads: int, z_threads: int,
        shared: int, stream: Any, arguments: tuple[Sequence[int], Sequence[Any]], extra: int,
    ) -> tuple[int]:  # fmt: skip
        assert (y, z, y_threads, z_threads, shared, extra) == (1, 1, 1, 1, 0, 0)
        assert 0 < x < 1 << 31
        assert 0 < threads <= 1024
        with self._lock:
            error = self._enter_driver("cuLaunchKernel")
            if error:
                return (error,)
            known = self._functions[int(function)]
            values = [kind(value).value for value, kind in zip(*arguments, strict=True)]
            assert values == list(arguments[0]), "an argument does not fit its type"
            self._put(self._streams[int(stream)], self._kernel(known, values, x, threads))
            return (0,)

    def _kernel(self, function: fake_ptx.Function, values: Sequence[int], blocks: int, threads: int) -> Work:
        def run() -> None:
            if not self.kernels_are_wrong:
                fake_ptx.Run(function, values, self).run(blocks, threads)

        return run

    def gather(self, addresses: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
        """Read values of the device's memory, as a kernel does."""
        memory, places = self._reached(addresses, dtype)
        found: np.ndarray = memory[places]
        return found

    def scatter(self, addresses: np.ndarray, values: np.ndarray) -> None:
        """Write values to the device's memory, as a kernel does."""
        memory, places = self._reached(addresses, values.dtype)
        memory[places] = values

    def _reached(self, addresses: np.ndarray, dtype: np.dtype[Any]) -> tuple[np.ndarray, np.ndarray]:
        first, last = int(addresses.min()), int(addresses.max())
        if (addresses % dtype.itemsize).any():
            self._violation(f"{dtype} at an address that is no multiple of its size")
            raise Fault
        span = self._span(first, last - first + dtype.itemsize)
        return span.view(dtype), (addresses - np.uint64(first)) // np.uint64(dtype.itemsize)

    def _enter_driver(self, name: str, *, allocates: bool = False) -> int:
        if threading.get_ident() not in self._with_context:
            self.calls[name] += 1
            return _INVALID_CONTEXT
        error = self._enter(name, allocates=allocates)
        if error is OK and self.current and name == "cuLaunchKernel":
            self._violation(f"{name} while device {self.current} was the thread's")
        return int(error)
