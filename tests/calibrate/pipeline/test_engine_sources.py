"""What engines are compiled from: typed by the recipe, proved on the golden pictures, and never run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from promptray import BuildError, Scorer, ScoringError
from promptray.calibrate.pipeline import as_written, changed_graph, tensorrt_recipe
from promptray.calibrate.quantise import Quantised, quantise
from promptray.export.tensorrt.model import read_model
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.parity import read_parity
from promptray.runtime.engines.settings import Range, Settings
from promptray.runtime.engines.sources import facts_of, source_sets, sources
from promptray.runtime.golden import read_golden
from promptray.runtime.preprocess import normalise
from tests.calibrate.pipeline.conftest import Make
from tests.calibrate.pipeline.test_build import files_of
from tests.export.test_opset_17 import require_equal, require_opset_17, run


def test_the_bundle_offers_sets_of_the_precisions_asked_for_and_fp16_to_compare_with(
    typed_bundle: Path,
) -> None:
    manifest = Bundle.open(typed_bundle).manifest
    assert manifest.engines is not None
    assert manifest.engines.settings == Settings(images=Range(tuned=1, most=4), workspace_bytes=512 << 20)
    head = "engines/head/findings"
    found = {
        (each.precision, each.opset): [source.file for source in each.sources]
        for each in source_sets(manifest)
    }
    assert found == {
        ("fp32", 20): ["graphs/image/fp32-20.onnx", "graphs/head/findings/fp32-20.onnx"],
        ("fp16", 20): ["engines/image/fp16-20.onnx", f"{head}/fp16-20.onnx"],
        ("int8-qdq", 20): ["engines/image/int8-qdq-20.onnx", f"{head}/fp16-20.onnx"],
        ("fp16", 17): ["engines/image/fp16-17.onnx", f"{head}/fp16-17.onnx"],
        ("int8-qdq", 17): ["engines/image/int8-qdq-17.onnx", f"{head}/fp16-17.onnx"],
    }
    calibration = manifest.engines.calibration
    assert calibration is not None
    assert (calibration.images, calibration.source) == (8, "eight pieces")


def test_the_report_says_what_was_proved_and_what_was_not(typed_bundle: Path) -> None:
    report = read_parity(Bundle.open(typed_bundle))
    assert [(each.precision, each.opset) for each in report.sources] == [
        ("fp16", 20), ("int8-qdq", 20), ("fp16", 17), ("int8-qdq", 17),
    ]  # fmt: skip
    errors = [head.score_error for each in report.sources for head in each.heads]
    assert errors[0] == errors[2]  # fp16 is the same arithmetic in both opsets
    assert 0 < errors[0] < 0.01 < errors[1] < 0.1
    assert all("as written" in each.backend for each in report.sources)
    assert any(
        "ranges of the sources of engines: 8 different images are few" in note for note in report.notes
    )
    assert report.gates == []


def test_the_runtime_runs_none_of_it(typed_bundle: Path, reference_bundle: Path) -> None:
    film = typed_bundle / Bundle.open(typed_bundle).manifest.golden.images[0]
    with Scorer.open(typed_bundle, site=None) as typed, Scorer.open(reference_bundle, site=None) as plain:
        assert typed.backend.precision == "fp32"
        found, expected = (each.score(film, modality="DX").scores for each in (typed, plain))
    assert {key: score.logit for key, score in found.items()} == {
        key: score.logit for key, score in expected.items()
    }


def test_a_backend_is_told_which_graphs_a_set_is_compiled_from(typed_bundle: Path) -> None:
    manifest = Bundle.open(typed_bundle).manifest
    new = sources(manifest, "tensorrt", "10.3.0", "int8-qdq")
    assert [(each.role, each.precision) for each in new] == [("image", "int8-qdq"), ("head", "fp16")]
    assert sources(manifest, "tensorrt", "10.3.0") == new  # the narrowest
    assert all(each.sha256 == manifest.files[each.file].sha256 for each in facts_of(new, manifest))
    old = sources(manifest, "tensorrt", "8.6.1", "fp16")
    assert all(each.file.endswith("fp16-17.onnx") for each in old)
    for backend, version, precision in (
        ("tensorrt", "8.6.1", "fp32"),
        ("tensorrt", "10.3.0", "fp8-qdq"),
        ("onnxruntime-cuda", "1.31.1", "int8-qdq"),
    ):
        with pytest.raises(ScoringError) as caught:
            sources(manifest, backend, version, precision)
        assert caught.value.code == "engine.source"
        assert precision in str(caught.value.expected)
        assert "fp16" in str(caught.value.found)


def test_opset_17_variants_are_the_same_functions(typed_bundle: Path) -> None:
    bundle = Bundle.open(typed_bundle)
    pictures = normalise(read_golden(bundle).pictures[:2], bundle.manifest.preprocessing)
    new, old = (bundle.read(f"engines/image/fp16-{opset}.onnx") for opset in (20, 17))
    require_opset_17(old)
    one_step = 2.0**-9  # of float16, where a last bit of the activation crosses a rounding
    require_equal(run(old, {"pixels": pictures}), run(new, {"pixels": pictures}), one_step)
    quantised = bundle.read("engines/image/int8-qdq-17.onnx")
    graph = require_opset_17(quantised).graph
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in graph.node}
    scales = {node.input[1] for node in graph.node if node.op_type == "QuantizeLinear"}
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert {types[name] for name in scales} == {onnx.TensorProto.FLOAT}
    assert {"FP32", "INT8"} <= read_model(quantised).types


def test_a_second_build_runs_no_stage_and_gives_the_same_files(
    make: Make, typed_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("a finished stage ran again")

    monkeypatch.setattr(as_written, "_answers", never)
    monkeypatch.setattr(changed_graph.GraphInputs, "feeds", never)
    again = make(opset_17=True, images={"tuned": 1, "most": 4}, workspace="512 MiB")
    assert files_of(again) == files_of(typed_bundle)


@pytest.mark.parametrize("precision", ["fp8-qdq", {"image": "fp32", "head": "fp16"}])
def test_other_precisions_are_proved_alike(make: Make, precision: Any) -> None:
    bundle = Bundle.open(make(precision=precision))
    (*_, last) = read_parity(bundle).sources
    (head,) = last.heads
    assert 0 < head.score_error <= head.score_tolerance
    name = precision if isinstance(precision, str) else "fp16"
    assert last.precision == name
    assert [each.precision for each in bundle.manifest.engine_sources(name)] == (
        ["fp8-qdq", "fp8-qdq"] if name == "fp8-qdq" else ["fp32", "fp16"]
    )


def test_fp32_engines_need_no_other_graph_but_for_tensorrt_8_6(make: Make) -> None:
    bundle = Bundle.open(make(precision="fp32", calibration=None, opset_17=True))
    assert bundle.manifest.engines is not None
    assert [each.file for each in bundle.manifest.engines.sources] == [
        "engines/image/fp32-17.onnx",
        "engines/head/findings/fp32-17.onnx",
    ]
    (only,) = read_parity(bundle).sources
    assert only.heads[0].score_tolerance == bundle.manifest.heads[0].score_tolerance


def damaged(content: bytes, scheme: Any, feeds: Any) -> Quantised:
    """Type a graph and lose a tenth of its greatest weight."""
    made = quantise(content, scheme, feeds)
    model = onnx.load_from_string(made.content)
    greatest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    greatest.CopyFrom(numpy_helper.from_array(0.9 * numpy_helper.to_array(greatest), greatest.name))
    return Quantised(bytes(model.SerializeToString()), made.report)


def not_a_number(content: bytes, scheme: Any, feeds: Any) -> Quantised:
    made = quantise(content, scheme, feeds)
    model = onnx.load_from_string(made.content)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT16:
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(np.full_like(values, np.nan), tensor.name))
    return Quantised(bytes(model.SerializeToString()), made.report)


@pytest.mark.parametrize("change", [damaged, not_a_number])
def test_sources_that_compute_something_else_are_refused_and_not_written(
    make: Make, tmp_path: Path, change: Any
) -> None:
    with pytest.raises(BuildError, match="give other golden answers") as refusal:
        make(change=change, precision="fp16")
    assert refusal.value.code == "gate.failed"
    assert "tensorrt.precision" in str(refusal.value.cure)
    assert not (tmp_path / "made.bundle").exists()


@pytest.mark.parametrize(
    ("changes", "key", "says"),
    [
        ({"precision": {"image": "int8-qdq", "head": "fp8-qdq"}}, "precision", "one precision of 8 bits"),
        (
            {"precision": {"image": {"precision": "fp32", "keep": ["x"]}}},
            "precision",
            "keeps everything high",
        ),
        ({"precision": "fp16", "calibration": None}, "calibration", "the section names none"),
        ({"precision": "fp32"}, "calibration", "take no ranges"),
        ({"precision": "fp8-qdq", "opset_17": True}, "opset_17", "has no float8"),
        ({"images": {"tuned": 9, "most": 8}}, "images", "tuned is beyond most"),
        ({"images": {"tuned": 1, "most": 1025}}, "images", "none that a device runs"),
        ({"images": {"tuned": 1, "most": 2**70}}, "images", "number"),
        ({"prompts": {"tuned": 5, "most": 65537}}, "prompts", "none that a device runs"),
        ({"sides": {"tuned": 16, "most": 32769}}, "sides", "none that a device runs"),
        ({"prompts": {"tuned": 9, "most": 8}}, "prompts", "tuned is beyond most"),
        ({"prompts": {"tuned": 1, "most": 2}}, "prompts", "one call takes fewer"),
        ({"ahead_of_time": ["sm86"]}, "ahead_of_time", "no compute capability"),
        ({"ahead_of_time": ["8.6", "8.6"]}, "ahead_of_time", "written twice"),
        ({"precision": "fp8-qdq", "ahead_of_time": ["8.6"]}, "ahead_of_time", "has float8"),
        ({"precision": {"image": "fp32"}, "ahead_of_time": ["7.5"]}, "ahead_of_time", "no float32 products"),
        (
            {"prepare": True, "sides": {"tuned": 16, "most": 255}},
            "tensorrt.sides",
            "have up to 256 rows or columns",
        ),
        ({"workspace": "2 GB"}, "workspace", "no whole number of MiB or GiB"),
        ({"workspace": "1000 GiB"}, "workspace", "no whole number of MiB or GiB"),
        ({"precision": "bf16"}, "precision", "this value is not known"),
        ({"precision": {"image": "bf16"}}, "precision.image", "this value is not known"),
        ({"precison": "fp16"}, "tensorrt.precison", "unknown key"),
    ],
)
def test_a_section_that_does_not_fit_is_refused_by_its_key(
    make: Make, changes: dict[str, Any], key: str, says: str
) -> None:
    with pytest.raises(BuildError) as refusal:
        make(**changes)
    assert refusal.value.code == "recipe.invalid"
    assert key in str(refusal.value.artefact)
    assert says in refusal.value.message


def test_a_graph_that_prepares_images_is_refused_where_no_golden_image_could_gate_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_recipe, "largest_golden", lambda draft: 0)  # all are in colour
    with pytest.raises(BuildError, match="no golden image is in grey") as refusal:
        make(prepare=True)
    assert refusal.value.code == "recipe.invalid"
    assert "tensorrt.prepare" in str(refusal.value.artefact)


@pytest.mark.parametrize("target", ["8.7", "9.0", "11.0"])
def test_a_gpu_that_no_plan_can_be_built_for_is_refused_before_the_long_work(
    make: Make, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setattr(tensorrt_recipe, "built_for", lambda: ["8.6", "8.9"])

    def never(*_: Any) -> None:
        raise AssertionError("the long work was begun")

    monkeypatch.setattr(as_written, "check_sources", never)
    with pytest.raises(BuildError, match=r"no plans for GPUs.*expected one of 8\.6, 8\.9") as refusal:
        make(never, ahead_of_time=["8.6", target])
    assert refusal.value.code == "recipe.invalid"
    assert (refusal.value.found, "tensorrt.ahead_of_time" in str(refusal.value.artefact)) == (target, True)


def test_without_tensorrt_rtx_plans_are_refused_before_the_long_work(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise BuildError("engine.unavailable", f"{name} is not installed")

    def never(*_: Any) -> None:
        raise AssertionError("the long work was begun")

    monkeypatch.setattr(tensorrt_recipe, "load_flavour", absent)
    with pytest.raises(BuildError, match="tensorrt_rtx is not installed") as refusal:
        make(never, ahead_of_time=["8.6"])
    assert refusal.value.code == "engine.unavailable"


def test_layers_that_are_kept_high_stay_float16(make: Make, typed_bundle: Path) -> None:
    kept = {"precision": "int8-qdq", "keep": ["encoder.model.blocks.1"]}
    bundle = Bundle.open(make(precision={"image": kept}))
    kept_high, all_low = (
        sum(node.op_type == "QuantizeLinear" for node in _graph(each, "engines/image/int8-qdq-20.onnx").node)
        for each in (bundle, Bundle.open(typed_bundle))
    )
    assert 0 < kept_high < all_low


def _graph(bundle: Bundle, name: str) -> onnx.GraphProto:
    return onnx.load_from_string(bundle.read(name)).graph
