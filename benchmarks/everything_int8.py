"""What no model is to be quantised by: every operator, as `onnxruntime.quantization` does if left alone."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import onnx
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from promptray.calibrate.quantise import Quantised, Scheme, quantise
from promptray.calibrate.quantise.observe import Feeds


class _Reader(CalibrationDataReader):
    def __init__(self, feeds: Feeds) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Mapping[str, Any] | None:
        return next(self._feeds, None)


def everything_int8(content: bytes, scheme: Scheme, feeds: Feeds) -> Quantised:
    """Quantise inputs and outputs of all operators, LayerNorm, softmax and residual sums among them.

    All settings are the tool's own: per tensor, least and greatest value seen. For `promptray.calibrate.
    pipeline.build`, as `change`; the report is that of `scheme`, with the size that came out.
    """
    report = quantise(content, scheme, feeds).report
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "everything.onnx"
        quantize_static(onnx.load_from_string(content), path, _Reader(feeds))
        made = path.read_bytes()
    notes = ["every operator was quantised, with the tool's own settings"]
    return Quantised(made, msgspec.structs.replace(report, bytes_after=len(made), notes=notes))
