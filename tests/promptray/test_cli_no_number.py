"""A model that gives some images no number, though every golden answer is right."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from tests import bundle_factory as factory
from tests.fuzz.small_bundle import write_small
from tests.promptray.command_line import Call

_GRAPH = "graphs/image/fp32-20.onnx"
_CONSTANTS = {
    "axes": np.array([1, 2, 3]), "least": np.float32(1.5), "nothing": np.float32(0),
    "wide": np.array([-1, 1, 1]),
}  # fmt: skip


@pytest.fixture
def dark_is_no_number(tmp_path: Path) -> Path:
    """A bundle whose image side adds 0 * log(relu(mean + 1.5)): of a dark picture, 0 times infinity."""
    write_small(tmp_path)
    bundle = tmp_path / "small.bundle"
    model = onnx.load_from_string((bundle / _GRAPH).read_bytes())
    (query,) = [each for each in model.graph.node if "image_query" in each.output]
    query.output[0] = "finite"
    model.graph.initializer.extend(numpy_helper.from_array(each, name) for name, each in _CONSTANTS.items())
    node = helper.make_node
    model.graph.node.extend(
        [
            node("ReduceMean", ["pixels", "axes"], ["mean_grey"], keepdims=0),
            node("Add", ["mean_grey", "least"], ["lifted"]),
            node("Relu", ["lifted"], ["clipped"]),
            node("Log", ["clipped"], ["logarithm"]),
            node("Mul", ["logarithm", "nothing"], ["no_number"]),
            node("Reshape", ["no_number", "wide"], ["added"]),
            node("Add", ["finite", "added"], ["image_query"]),
        ]
    )
    content = model.SerializeToString()
    (bundle / _GRAPH).write_bytes(content)
    document = json.loads((bundle / "bundle.json").read_bytes())
    document["files"][_GRAPH] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    factory.reseal(bundle, json.dumps(document).encode())
    return bundle


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Three films of which the second is dark."""
    folder, random = tmp_path / "films", np.random.default_rng(0)
    folder.mkdir()
    for name, most in (("a.png", 256), ("doe^jane.png", 12), ("z.png", 256)):
        Image.fromarray(random.integers(0, most, (64, 48), np.uint8)).save(folder / name)
    return folder


def test_an_acceptance_says_so_in_its_report(
    call: Call, dark_is_no_number: Path, films: Path, tmp_path: Path
) -> None:
    answer = call(
        "accept", dark_is_no_number, "--images", films, "--modality", "DX", "--sla", "p50<60s", "--no-site",
        "--refused-at-most", 1, "--budget", 1, "-o", tmp_path / "report", "--json",
    )  # fmt: skip
    assert answer.code == 1
    report = answer.documents[0]["report"]
    verdicts = {part["name"]: part["verdict"] for part in report["parts"]}
    assert verdicts["golden"] == "passed"
    assert verdicts["images"] == "refused"  # however many the door may refuse
    assert verdicts["latency"] == "inconclusive"
    assert report["images"]["refused"] == [{"image": "file 2", "code": "score.not-finite"}]
    assert "doe" not in answer.out + answer.err


def test_a_bench_says_which_image(call: Call, dark_is_no_number: Path, films: Path) -> None:
    answer = call("bench", dark_is_no_number, films, "--modality", "DX", "--no-site", "--json")
    assert answer.code == 1
    error = answer.documents[0]["error"]
    assert (error["code"], error["artefact"]) == ("score.not-finite", "image 2")
    assert "doe" not in answer.out + answer.err
