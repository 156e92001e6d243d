"""The committed report of the 192-wide decoders is what TensorRT-RTX makes of them here."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.rtx_layers import RESULT, measure, table
from tests.rtx import needs_rtx

DOCUMENT = Path(__file__).parents[3] / "docs" / "tensorrt.md"


@needs_rtx
def test_decoders_are_compiled_as_reported() -> None:
    # Where it is not: `python -m benchmarks.rtx_layers`, and look at what changed before it is committed.
    assert measure() == json.loads(RESULT.read_text(encoding="utf-8"))


def test_the_document_shows_the_report() -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    text = DOCUMENT.read_text(encoding="utf-8")
    assert table(result) in text
    assert f"TensorRT-RTX {result['tensorrt_rtx']}" in text
