"""GPUs that a library is not for: TensorRT-RTX serves workstation cards alone, and names which."""

from __future__ import annotations

from promptray.runtime.engines.facts import Device
from promptray.runtime.errors import ScoringError


def require_target(backend: str, device: Device) -> None:
    """Refuse a GPU that the library of a backend has no engines for.

    TensorRT and ONNX Runtime say so when they build or load; TensorRT-RTX lists its targets, so that another
    backend can be chosen before any work is done.

    Raises
    ------
    ScoringError
        ``engine.target``.
    """
    if backend != "tensorrt_rtx":
        return
    from promptray.runtime.backends.tensorrt_engine import load_library

    trt = load_library(backend)
    known = [
        f"{name[2:-1]}.{name[-1]}" for name in trt.ComputeCapability.__members__ if name.startswith("SM")
    ]
    if device.compute_capability in known:
        return
    raise ScoringError(
        "engine.target",
        f"TensorRT-RTX {trt.__version__} is not for this GPU",
        artefact=device.title,
        expected=f"compute capability {', '.join(known)}",
        found=device.compute_capability,
        cure="use another backend on this GPU, tensorrt or onnxruntime-cuda; docs/engines.md says what each "
        "needs",
    )
