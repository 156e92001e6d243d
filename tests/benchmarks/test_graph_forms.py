"""Forms of the graphs give the answers of what is shipped; what they take is not looked at."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import graph_forms, graph_surgery
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


def test_what_a_family_has_not_is_said(open_clip_independent_bundle: Path, tmp_path: Path) -> None:
    found = measured(open_clip_independent_bundle, tmp_path)
    (row,) = found["head, 2 prompts"]
    assert row.times is None
    assert row.not_run == "the bank has no values of an attention"
    assert all(row.times for row in found["from the 8-bit picture to features"])


def test_a_form_with_other_answers_is_not_timed(
    carzero_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_surgery, "fused_by_tool", lambda content, kind: content)
    monkeypatch.setattr(graph_forms, "difference", lambda found, expected: float("nan"))
    with pytest.raises(AssertionError, match="answers differ"):
        measured(carzero_bundle, tmp_path)


@pytest.mark.parametrize("bias", [True, False])
def test_grey_is_folded_into_a_patch_embedding_with_and_without_bias(bias: bool) -> None:
    random = np.random.default_rng(0)
    constants = {"kernel": random.normal(size=(5, 3, 4, 4)), "bias": random.normal(size=5)}
    used = ["kernel", "bias"] if bias else ["kernel"]
    sides = {"pixels": ["batch", 3, 8, 8], "features": ["batch", 5, 2, 2]}
    pixels, features = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in sides.items()
    )
    graph = helper.make_graph(
        [helper.make_node("Conv", ["pixels", *used], ["features"], strides=[4, 4])], "patches",
        [pixels], [features],
        [numpy_helper.from_array(constants[name].astype(np.float32), name) for name in used],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    content = model.SerializeToString()
    rule = Normalise(mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4])
    levels = random.integers(0, 256, (1, 1, 8, 8), np.uint8)
    mean, deviation = (np.array(each).reshape(1, 3, 1, 1) for each in (rule.mean, rule.std))
    usual = ((levels / 255 - mean) / deviation).astype(np.float32)
    (expected,) = ort.InferenceSession(content).run(None, {"pixels": usual})
    folded = graph_surgery.for_grey(content, rule, levels=True)
    (found,) = ort.InferenceSession(folded).run(None, {"pixels": levels})
    np.testing.assert_allclose(found, expected, atol=1e-4)
