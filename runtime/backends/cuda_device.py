"""Whether CUDA can be used here: its Python bindings, and the GPU that they find."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from promptray.runtime.engines.facts import Device
from promptray.runtime.errors import ScoringError

#: By the name of cuda-bindings and by that of cuda-python 11.
_RUNTIME = ("cuda.bindings.runtime", "cuda.cudart")
_DRIVER = ("cuda.bindings.driver", "cuda.cuda")


def load_bindings() -> Any:
    """Return the module of CUDA's runtime functions.

    Raises
    ------
    ScoringError
        ``backend.unavailable`` where it is not installed or cannot be loaded.
    """
    return _load(_RUNTIME)


def load_driver() -> Any:
    """Return the module of the driver's functions, which compile and launch kernels.

    Raises
    ------
    ScoringError
        As :func:`load_bindings`.
    """
    return _load(_DRIVER)


def _load(names: Sequence[str]) -> Any:
    reason = ""
    for name in names:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:
            reason = reason or (str(error).splitlines() or [""])[0][:200]
    raise ScoringError(
        "backend.unavailable",
        "CUDA's Python bindings cannot be loaded",
        artefact=names[0],
        found=reason,
        cure="pip install cuda-bindings, of the CUDA version (12 or 13) that the driver supports",
    )


def device_facts(runtime: Any) -> Device:
    """Ask CUDA what device 0 is.

    Parameters
    ----------
    runtime : module
        Of :func:`load_bindings`.

    Raises
    ------
    ScoringError
        ``backend.unavailable`` without a driver or a GPU.
    """
    attributes = runtime.cudaDeviceAttr
    answers = [runtime.cudaGetDeviceCount()]
    if not int(answers[0][0]) and answers[0][1]:
        answers += [
            runtime.cudaGetDeviceProperties(0),
            *(
                runtime.cudaDeviceGetAttribute(attribute, 0)
                for attribute in (
                    attributes.cudaDevAttrComputeCapabilityMajor,
                    attributes.cudaDevAttrComputeCapabilityMinor,
                    attributes.cudaDevAttrMultiProcessorCount,
                )
            ),
        ]
    failed = next((answer[0] for answer in answers if int(answer[0])), None)
    if failed is not None or len(answers) == 1:
        name = b"no CUDA device" if failed is None else runtime.cudaGetErrorName(failed)[1]
        raise ScoringError(
            "backend.unavailable",
            "there is no GPU that CUDA can use",
            found=name.decode() + ("" if failed is None else f" ({int(failed)})"),
            cure="install NVIDIA's driver for this GPU, as new as the CUDA of cuda-bindings at least; "
            "`nvidia-smi` must list the GPU (on a Jetson: JetPack's own driver)",
        )
    properties, major, minor, multiprocessors = (answer[1] for answer in answers[1:])
    return Device(
        name=properties.name.split(b"\0")[0].decode("utf-8", "replace"),
        compute_capability=f"{int(major)}.{int(minor)}",
        multiprocessors=int(multiprocessors),
    )
