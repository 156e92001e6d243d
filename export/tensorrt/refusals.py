"""What TensorRT says when it refuses a graph, and what that means for who reads it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from promptray.export.tensorrt.messages import Refused

#: How the builder names a node; the parser has functions for it.
_OPERATION = re.compile(r"operation '([^']+)'")


@dataclass(frozen=True)
class _Known:
    """A pattern of TensorRT's message, what it means, and what helps."""

    pattern: re.Pattern[str]
    meaning: str
    cure: str


# Patterns of TensorRT-RTX 1.7; a message that none of them knows is shown as it is.
_KNOWN = [
    _Known(re.compile(pattern), meaning, cure)
    for pattern, meaning, cure in (
        (
            r"HW-specific datatypes: .*fp8",
            "float8 needs a GPU of compute capability 8.9 or newer",
            "use the graph of fp16 or int8 for this GPU",
        ),
        (
            r"HW-specific datatypes: .*b16",
            "bfloat16 needs a GPU of compute capability 8.0 or newer",
            "use the graph of fp16 for this GPU",
        ),
        (
            r"Turing \(SM75\): FP32 GEMM is not supported",
            "TensorRT-RTX has no float32 products for GPUs of compute capability 7.5",
            "use a graph of fp16, or of int8 with a float16 rest, for this GPU; in such a graph this layer "
            "was kept in float32, by `keep` of the recipe or for its range: leave it out of `keep`, or leave "
            "7.5 out of `ahead_of_time`",
        ),
        (
            r"has type Int32 but must have type FP8",
            "a bias is quantised to int32, which TensorRT does not take",
            "quantise with this software, which leaves biases as they are",
        ),
        (
            r"Quantized constant .* only allowed before DQ",
            "a table of int8 rows is for ONNX Runtime: TensorRT takes int8 constants before products only",
            "quantise with `rest: float16`, which stores such tables as float16",
        ),
        (
            r"no optimization profile has been defined",
            "an input has a dynamic dimension that no profile gives a range",
            "give a profile for every input",
        ),
        (
            r"[Dd]imension mismatch for tensor .* and profile",
            "the shapes that an engine is asked for do not fit the graph",
            "change images or prompts of section `tensorrt` of the recipe, and build the bundle again",
        ),
        (
            r"Plugin not found",
            "the graph has an operator that this TensorRT does not have",
            "build the bundle again with this version, which exports operators of the standard alone",
        ),
        (
            r"[Oo]ut of memory|OutOfMemory|insufficient memory",
            "there was not enough memory to build the engine",
            "close what else runs on this device, or set a smaller `workspace` in section `tensorrt`",
        ),
    )
]


def refusal(line: str, node: str | None = None) -> Refused:
    """Return the refusal of a graph.

    Parameters
    ----------
    line : str
        First error of TensorRT's log, or of its parser.
    node : str, optional
        The node that the parser names; that of the message by default.
    """
    known = next((each for each in _KNOWN if each.pattern.search(line)), None)
    named = _OPERATION.search(line)
    if node is None and named:
        node = f"node {named[1]}"
    return Refused(
        code="engine.build-failed",
        message=known.meaning if known else "TensorRT refuses the graph",
        artefact=node,
        found=line or "TensorRT gave no reason",
        cure=known.cure if known else "report it with this message and the output of `promptray doctor`",
    )
