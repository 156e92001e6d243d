"""Whether ONNX Runtime's CUDA provider works: its wheel lists it also where CUDA's libraries are missing."""

from __future__ import annotations

import contextlib
import ctypes
import io
import warnings
from pathlib import Path

import onnxruntime as ort

from promptray.runtime.backends.onnxruntime_graph import FAULTS

PROVIDER = "CUDAExecutionProvider"
_LIBRARIES = Path(ort.__file__).parent / "capi"
# The least model: y = Identity(x), one float32, IR version 8, operator set 17.
_MODEL = (
    b'\x08\x08\x12\x00:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01g'
    b"Z\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01"
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x11"
)


def find_libraries() -> None:
    """Load the libraries that Python packages bring; what is missing shows when the provider is used.

    It comes before a look at the list of providers: newer wheels list this one only once it could be loaded.
    """
    if not hasattr(ort, "preload_dlls"):
        return
    # It prints what it does not find, on the stream of our JSON.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ort.preload_dlls(cudnn=True, cuda=True, msvc=False)


def fault() -> str | None:
    """Open a session of the least model on the GPU, and say why that fails; None where it works."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a provider that is not there, which is what is asked
            session = ort.InferenceSession(_MODEL, options, providers=[PROVIDER], enable_fallback=0)
    except FAULTS as error:
        return (str(error).splitlines() or [type(error).__name__])[0][:200]
    return None if session.get_providers()[0] == PROVIDER else missing_library()


def missing_library(folder: Path = _LIBRARIES) -> str:
    """Name the library without which ONNX Runtime runs on the processor instead, and says nothing.

    Call it after a session was asked for: before, the provider's library must not be loaded.
    """
    libraries = sorted(folder.glob("*onnxruntime_providers_cuda*"))
    for library in libraries:
        try:
            ctypes.CDLL(str(library))
        except OSError as error:
            line = (str(error).splitlines() or ["it cannot be loaded"])[0]
            return line.replace(str(library), library.name)[:200]
    if not libraries:
        return "the installed onnxruntime is not built for CUDA"
    return "the CUDA provider gave way to the processor's"
