"""A model of which every operator was quantised is refused, and there is no bundle of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx
import pytest

from benchmarks.everything_int8 import everything_int8
from promptray import BuildError
from promptray.calibrate.pipeline import build
from tests.cache_copy import copy_cache
from tests.calibrate.pipeline.conftest import reference_recipe

#: What `int8-qdq` leaves high in the reference model.
KEPT = {"LayerNormalization", "Softmax", "Add"}


def quantised_inputs(graph: bytes) -> set[str]:
    """Types of the operators that take an input from a DequantizeLinear."""
    nodes = onnx.load_from_string(graph).graph.node
    made = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    return {node.op_type for node in nodes if made & set(node.input)}


def test_everything_in_int8_is_refused_and_nothing_is_written(
    reference_bundle: Path, pieces: Path, tmp_path: Path
) -> None:
    cache = copy_cache(reference_bundle.parent / "cache", tmp_path, "quantise-*")
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted((pieces / "gate").iterdir())[:60]:
        shutil.copy(path, few)
    schemes = {"image": {"scheme": "int8-qdq"}}
    calibration = {"images": str(pieces / "calibration"), "source": "pieces"}
    recipe = reference_recipe(
        tmp_path, pieces,
        quantise={**schemes, "calibration": calibration}, gate={"images": str(few), "source": "pieces"},
    )  # fmt: skip
    output = tmp_path / "everything.bundle"
    with pytest.raises(BuildError, match="REFUSED") as refusal:
        build(recipe, output, cache=cache, change=everything_int8)
    assert refusal.value.code == "gate.failed"
    assert not output.exists()
    report = json.loads((tmp_path / "everything.bundle.gate" / "head-findings.json").read_text())
    assert report["verdict"] == "refused"
    (made,) = cache.glob("quantise-*/graph.onnx")
    assert quantised_inputs(made.read_bytes()) >= KEPT
