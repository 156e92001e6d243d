"""The TensorRTs there are: their Python modules, the versions that are promised, and what their parsers read.

The one place that the runtime, which loads plans, and the builder, which makes them, take this from.
"""

from __future__ import annotations

from promptray.runtime.bundle.engines import NEWEST_OPSET, OLDEST_OPSET

#: The second name is the bindings' own, for where only the wheels of bindings and libraries are installed.
MODULES: dict[str, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
#: How each is installed.
CURES = {
    "tensorrt": "install TensorRT 8.6, or 10.3 or newer, as NVIDIA packages it; JetPack brings it "
    "(docs/tensorrt.md)",
    "tensorrt_rtx": "pip install 'promptray[rtx]'",
}
#: The versions that this software is written for.
PROMISED = {"tensorrt": "8.6, or 10.3 or newer", "tensorrt_rtx": "1.0 or newer"}


def is_promised(name: str, version: str) -> bool:
    """Whether this software is written for a version: 9.x and the first of 10 are not what 8.6 and 10.3 are.

    Parameters
    ----------
    name : {'tensorrt', 'tensorrt_rtx'}
    version : str
        As its module says it.
    """
    numbers = _numbers(version)
    if name == "tensorrt_rtx":
        return numbers >= (1, 0)
    return numbers == (8, 6) or numbers >= (10, 3)


def strongly_typed(name: str, version: str) -> bool:
    """Whether its engines have the types of their graphs; TensorRT before 10 chooses types itself."""
    return name != "tensorrt" or _numbers(version) >= (10, 0)


def newest_opset(name: str, version: str) -> int:
    """Return the newest ONNX operator set that a library is given: that of its kind's oldest parser.

    Parameters
    ----------
    name : str
        A backend's: TensorRT, TensorRT-RTX or ONNX Runtime's.
    version : str
    """
    return NEWEST_OPSET if strongly_typed(name, version) else OLDEST_OPSET


def _numbers(version: str) -> tuple[int, ...]:
    """Return the first two numbers; none, which is older than all, for what is no version."""
    parts = version.split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()
