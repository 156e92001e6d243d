"""Forms of the graphs give the answers of what is shipped; what they take is not looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks import graph_forms
from benchmarks import graph_surgery as surgery
from benchmarks.graph_forms import TOLERANCE, GraphForms, Row, main
from promptray.runtime.bundle.image_rules import Normalise


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_forms, "PAUSE", 0.0)


def measured(bundle: Path, tmp_path: Path) -> dict[str, list[Row]]:
    output = tmp_path / "result.json"
    main([str(bundle), "--prompts", "2,5", "--rounds", "2", "--threads", "1", "-o", str(output)])
    return msgspec.json.decode(output.read_bytes(), type=GraphForms).questions


def test_every_form_of_carzero_gives_the_same_answers(carzero_bundle: Path, tmp_path: Path) -> None:
    found = measured(carzero_bundle, tmp_path)
    assert [question.partition(",")[2] for question in found][2:] == [" 2 prompts"] * 2 + [" 5 prompts"] * 2
    for row in (row for rows in found.values() for row in rows):
        assert row.not_run is None
        assert row.difference is not None
        assert row.difference <= TOLERANCE
    forms = {row.form: row for row in found["image side"]}
    assert forms["attention: with its projection"].operators == ("Attention",)
    assert forms["attention: opset 23"].operators == ()
    picture = [row.form for row in found["from the 8-bit picture to features"]]
    assert picture == ["three channels", "8-bit levels"]


def test_what_a_family_has_not_is_said(open_clip_independent_bundle: Path, tmp_path: Path) -> None:
    found = measured(open_clip_independent_bundle, tmp_path)
    (row,) = found["head, 2 prompts"]
    assert row.times is None
    assert row.not_run == "the bank has no values of an attention"
    assert found["image side"][0].not_run == "ONNX Runtime's tool does not find all shapes"
    planes, levels = found["from the 8-bit picture to features"]
    assert (planes.form, planes.not_run) == (
        "three channels", "the first convolution reads three planes already",
    )  # fmt: skip
    assert levels.times


def test_a_form_with_other_answers_is_not_timed(
    carzero_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surgery, "fused_by_tool", lambda content, kind: content)
    monkeypatch.setattr(graph_forms, "difference", lambda found, expected: float("nan"))
    with pytest.raises(AssertionError, match="answers differ"):
        measured(carzero_bundle, tmp_path)


def patches(kernel: NDArray[Any], bias: NDArray[Any] | None, pads: int = 0) -> bytes:
    """Return a graph of one convolution, 4 x 4 of 8 x 8 pixels."""
    constants = {"kernel": kernel} if bias is None else {"kernel": kernel, "bias": bias}
    sides = {"pixels": ["batch", kernel.shape[1], 8, 8], "features": ["batch", 5, "rows", "columns"]}
    pixels, features = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in sides.items()
    )
    node = helper.make_node("Conv", ["pixels", *constants], ["features"], strides=[4, 4], pads=[pads] * 4)
    initialisers = [
        numpy_helper.from_array(each.astype(np.float32), name) for name, each in constants.items()
    ]
    graph = helper.make_graph([node], "patches", [pixels], [features], initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return bytes(model.SerializeToString())


def run(content: bytes, pixels: NDArray[Any]) -> NDArray[np.float32]:
    (found,) = ort.InferenceSession(content).run(None, {"pixels": pixels})
    return np.asarray(found)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_levels_are_folded_into_a_patch_embedding_with_and_without_bias(bias: bool, channels: int) -> None:
    random = np.random.default_rng(0)
    content = patches(random.normal(size=(5, channels, 4, 4)), random.normal(size=5) if bias else None)
    rule = Normalise(mean=[0.5, 0.4, 0.3][:channels], std=[0.2, 0.3, 0.4][:channels])
    levels = random.integers(0, 256, (1, 1, 8, 8), np.uint8)
    mean, deviation = (np.array(each).reshape(1, -1, 1, 1) for each in (rule.mean, rule.std))
    expected = run(content, ((levels / 255 - mean) / deviation).astype(np.float32))
    np.testing.assert_allclose(run(surgery.for_levels(content, rule), levels), expected, atol=1e-4)


def test_levels_cannot_be_folded_where_a_convolution_pads() -> None:
    with pytest.raises(surgery.NoSuchForm, match="pads"):
        surgery.for_levels(patches(np.ones((5, 1, 4, 4)), None, pads=1), Normalise(mean=[0.5], std=[0.2]))


def test_three_planes_are_three_times_the_work_of_one() -> None:
    random = np.random.default_rng(0)
    content = patches(random.normal(size=(5, 1, 4, 4)), random.normal(size=5))
    one = random.normal(size=(1, 1, 8, 8)).astype(np.float32)
    three = surgery.with_three_planes(content)
    np.testing.assert_allclose(run(three, np.repeat(one, 3, axis=1)), run(content, one), atol=1e-5)
    (kernel,) = (each for each in onnx.load_from_string(three).graph.initializer if each.name == "kernel")
    assert list(kernel.dims) == [5, 3, 4, 4]


def test_shapes_are_noted_in_the_names_of_the_inputs() -> None:
    random = np.random.default_rng(0)
    model = onnx.load_from_string(patches(random.normal(size=(5, 1, 4, 4)), None))
    end = helper.make_node("Relu", ["patches"], ["features"])
    model.graph.node[0].output[0] = "patches"
    model.graph.node.append(end)
    content = bytes(model.SerializeToString())
    noted = surgery.with_shapes(content)
    (value,) = (each for each in onnx.load_from_string(noted).graph.value_info if each.name == "patches")
    batch, *sides = value.type.tensor_type.shape.dim
    assert (batch.dim_param, [side.dim_value for side in sides]) == ("batch", [5, 2, 2])
    pixels = random.normal(size=(1, 1, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(run(noted, pixels), run(content, pixels))
