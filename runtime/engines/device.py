"""The GPU of this machine, by what decides which engines it can run."""

from __future__ import annotations

from promptray.runtime.engines.facts import Device


def device_here() -> Device:
    """Return the facts of CUDA's device 0.

    Raises
    ------
    ScoringError
        ``backend.unavailable`` where bindings, driver or GPU are missing, saying which.
    """
    from promptray.runtime.backends.cuda import Cuda

    return Cuda().device


def gpus_here() -> int:
    """Return how many GPUs this process may use; ``CUDA_VISIBLE_DEVICES`` chooses among them.

    Raises
    ------
    ScoringError
        ``backend.unavailable`` where bindings are missing.
    """
    from promptray.runtime.backends.cuda_device import load_bindings

    status, count = load_bindings().cudaGetDeviceCount()
    return 0 if int(status) else int(count)
