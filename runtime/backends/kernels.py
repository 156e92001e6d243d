"""Kernels of the package's own: PTX that the driver compiles when it is loaded, and their launches.

Through the driver's functions (``cuda.bindings.driver``; ``cuda.cuda`` of ``cuda-python`` 11), since older
runtimes cannot load PTX. They use the context that the runtime's calls of the same thread made, and number
their errors as the runtime does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from promptray.runtime.backends.cuda import Cuda
from promptray.runtime.backends.cuda_device import load_driver
from promptray.runtime.backends.cuda_resources import Stream
from promptray.runtime.errors import ScoringError


class Kernels:
    """The functions of one piece of PTX on the device. Thread-safe, except for a stream's one thread.

    Parameters
    ----------
    cuda : Cuda
        This thread must have called a function of it that makes a context, say allocated memory.
    ptx : str
        ASCII.
    names : sequence of str
        Of its functions.

    Raises
    ------
    ScoringError
        ``backend.unavailable`` where the driver's functions or its compiler are missing, or the PTX is none
        for this GPU; ``backend.out-of-memory``, ``backend.device-lost``.
    """

    def __init__(self, cuda: Cuda, ptx: str, names: Sequence[str]) -> None:
        self._cuda, self._driver = cuda, load_driver()
        module = self._load(ptx)
        cuda.own(self, partial(self._driver.cuModuleUnload, module))
        self._functions = {
            name: self._call("cuModuleGetFunction", module, name.encode("ascii")) for name in names
        }

    def _load(self, ptx: str) -> Any:
        try:
            return self._call("cuModuleLoadData", ptx.encode("ascii") + b"\0")
        except ScoringError as error:
            if error.code != "backend.failed":
                raise
            raise ScoringError(
                "backend.unavailable",
                "NVIDIA's driver does not compile the kernel that finds what is no number",
                artefact=self._cuda.device.title,
                found=error.message,
                cure="install the driver whole: the compiler (libnvidia-ptxjitcompiler) is a part of it; a "
                "container needs the driver's capability `compute`",
            ) from error

    def launch(
        self, name: str, blocks: int, threads: int, arguments: Sequence[tuple[int, type]], stream: Stream
    ) -> None:
        """Queue a function.

        A call of the runtime must have come before it in this thread: that one makes the context current.

        Parameters
        ----------
        name : str
        blocks, threads : int
            How many blocks, and threads of each.
        arguments : sequence of (int, ctypes type)
            In the order that the function declares them, and of the size.
        stream : Stream
        """
        values = tuple(value for value, _ in arguments), tuple(kind for _, kind in arguments)
        function = self._functions[name]
        self._call("cuLaunchKernel", function, blocks, 1, 1, threads, 1, 1, 0, stream.own, values, 0)

    def _call(self, name: str, *arguments: Any) -> Any:
        result = getattr(self._driver, name)(*arguments)
        if code := int(result[0]):
            said = self._driver.cuGetErrorName(result[0])[1]
            text = said.decode() if isinstance(said, bytes) else str(said)
            raise self._cuda.explained(name, code, f"{text} ({code})")
        return result[1] if len(result) > 1 else None
