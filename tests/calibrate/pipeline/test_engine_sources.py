"""What engines are compiled from: typed by the recipe, proved on the golden pictures, and never run."""

from __future__ import annotations

import json
import shutil
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from filelock import FileLock
from onnx import numpy_helper

from promptray import BuildError, BundleError, Scorer, ScoringError
from promptray.calibrate.pipeline import as_written, build, changed_graph, plans, tensorrt_recipe
from promptray.calibrate.quantise import Quantised, quantise
from promptray.export.repack import repack
from promptray.export.tensorrt import load_flavour
from promptray.export.tensorrt.model import read_model
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.parity import read_parity
from promptray.runtime.engines.settings import Range, Settings
from promptray.runtime.engines.sources import facts_of, source_sets, sources
from promptray.runtime.golden import read_golden
from promptray.runtime.preprocess import normalise
from tests import bundle_factory as factory
from tests.calibrate.pipeline.conftest import reference_recipe, write_pieces
from tests.calibrate.pipeline.test_build import files_of
from tests.export.test_opset_17 import require_equal, require_opset_17, run

MIXED = {"image": "int8-qdq", "head": "fp16"}
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def few(shared_dir: Path) -> Path:
    """A few pictures to take ranges from. Read only."""
    folder = shared_dir / "few-pieces"
    with FileLock(shared_dir / "few-pieces.lock"):
        if not folder.exists():
            write_pieces(shared_dir / "few-pieces.partial", 8, 1).rename(folder)
    return folder


def section(few: Path, **changes: Any) -> dict[str, Any]:
    asked = {"precision": MIXED, "calibration": {"images": str(few), "source": "eight pieces"}, **changes}
    return {key: value for key, value in asked.items() if value is not None}


@pytest.fixture(scope="module")
def typed_bundle(shared_dir: Path, reference_bundle: Path, few: Path) -> Path:
    """The reference model with sources of fp16 and int8 engines, also for TensorRT 8.6. Read only."""
    output = shared_dir / "typed.bundle"
    with FileLock(shared_dir / "typed.lock"):
        if not output.exists():
            asked = section(few, opset_17=True, images={"tuned": 1, "most": 4}, workspace="512 MiB")
            path = reference_recipe(shared_dir / "typed", few, quantise=None, gate=None, tensorrt=asked)
            build(path, output, cache=shared_dir / "cache")
    return output


@pytest.fixture
def make(tmp_path: Path, typed_bundle: Path, few: Path) -> Make:
    """``make(**section)`` builds a bundle of these keys, with the typed bundle's stages at hand."""

    def made(change: Any = quantise, **changes: Any) -> Path:
        asked = section(few, **changes)
        path = reference_recipe(tmp_path, few, quantise=None, gate=None, tensorrt=asked)
        build(path, tmp_path / "made.bundle", cache=typed_bundle.parent / "cache", change=change)
        return tmp_path / "made.bundle"

    return made


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
        ({"prompts": {"tuned": 9, "most": 8}}, "prompts", "tuned is beyond most"),
        ({"prompts": {"tuned": 1, "most": 2}}, "prompts", "one call takes fewer"),
        ({"ahead_of_time": ["sm86"]}, "ahead_of_time", "no compute capability"),
        ({"ahead_of_time": ["8.6", "8.6"]}, "ahead_of_time", "written twice"),
        ({"precision": "fp8-qdq", "ahead_of_time": ["8.6"]}, "ahead_of_time", "has float8"),
        ({"precision": {"image": "fp32"}, "ahead_of_time": ["7.5"]}, "ahead_of_time", "no float32 products"),
        ({"workspace": "2 GB"}, "workspace", "no whole number of MiB or GiB"),
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


def test_a_bundle_quantised_for_a_cpu_holds_its_fp32_sources_apart(
    cache: Path, gated_bundle: Path, pieces: Path, few: Path, tmp_path: Path
) -> None:
    path = reference_recipe(tmp_path, pieces, tensorrt={"precision": "fp32"})
    bundle = build(path, tmp_path / "both.bundle", cache=cache)
    assert [each.precision for each in bundle.manifest.graphs] == ["int8-qdq", "fp16", "int8-dynamic"]
    assert [each.file for each in bundle.manifest.engine_sources("fp32")] == [
        "engines/image/fp32-20.onnx",
        "engines/head/findings/fp32-20.onnx",
    ]
    report = read_parity(bundle)
    assert [each.precision for each in report.sources] == ["fp32"]
    assert [each.verdict for each in report.gates] == ["passed", "passed"]
    for graph, typed in zip(Bundle.open(gated_bundle).manifest.graphs, bundle.manifest.graphs, strict=True):
        assert bundle.manifest.files[typed.file] == Bundle.open(gated_bundle).manifest.files[graph.file]


def test_ranges_are_not_taken_from_the_gates_pictures(cache: Path, pieces: Path, tmp_path: Path) -> None:
    asked = {"precision": "fp16", "calibration": {"images": str(pieces / "gate"), "source": "the gate's"}}
    with pytest.raises(BuildError, match="typed for engines") as refusal:
        build(reference_recipe(tmp_path, pieces, tensorrt=asked), tmp_path / "x.bundle", cache=cache)
    assert refusal.value.code == "gate.images"


# The report and the bundle say the same


def _edited(typed_bundle: Path, folder: Path, edit: Callable[[list[Any]], object]) -> Bundle:
    copy = Path(shutil.copytree(typed_bundle, folder / "copy"))
    report = json.loads((copy / "parity.json").read_bytes())
    edit(report["sources"])
    factory.relist(copy, "parity.json", json.dumps(report).encode())
    return Bundle.open(copy)


@pytest.mark.parametrize(
    "edit",
    [
        lambda sources: sources.pop(),
        lambda sources: sources.clear(),
        lambda sources: sources.reverse(),
        lambda sources: sources[0].update(precision="fp8-qdq"),
        lambda sources: sources[0]["heads"].clear(),
        lambda sources: sources[0]["heads"][0].update(score_error=1.0),
        lambda sources: sources[0]["heads"][0].update(score_error=-1.0),
        lambda sources: sources[0]["heads"][0].update(map_error=0.2),
        lambda sources: sources[0]["heads"][0].update(map_error=None, map_tolerance=None),
        lambda sources: sources[0]["heads"][0].update(map_error=0.2, map_tolerance=0.3),
        lambda sources: sources[0]["heads"][0].update(score_tolerance=1e9),
        lambda sources: sources[1]["heads"][0].update(
            score_tolerance=1.01 * sources[0]["heads"][0]["score_tolerance"]
        ),
        lambda sources: sources[0]["heads"][0].update(more=1),
    ],
)  # fmt: skip
def test_a_report_that_does_not_fit_the_sources_is_refused(
    typed_bundle: Path, tmp_path: Path, edit: Callable[[list[Any]], object]
) -> None:
    bundle = _edited(typed_bundle, tmp_path, edit)
    with pytest.raises(BundleError, match="report of the gates") as caught:
        read_parity(bundle)
    assert caught.value.code == "bundle.format"


def test_a_changed_source_is_found_by_its_hash(typed_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(typed_bundle, tmp_path / "copy"))
    name = "engines/image/int8-qdq-20.onnx"
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError) as caught:
        Bundle.open(copy).read(name)
    assert caught.value.code == "bundle.hash"


def test_repacking_keeps_what_engines_are_compiled_from(typed_bundle: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    with Scorer.open(typed_bundle, site=site) as scorer:
        scorer.prompts.add("rib fracture", "There is rib fracture.", keep=True)
    made = repack(typed_bundle, tmp_path / "new.bundle", site=site).bundle
    before = Bundle.open(typed_bundle)
    assert made.manifest.engines == before.manifest.engines
    assert read_parity(made).sources == read_parity(before).sources


# Plans that travel in the bundle; TensorRT-RTX's builder has its own tests


@dataclass
class _Built:
    plan: bytes
    version: str
    targets: tuple[str, ...]


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """A stand-in for the builder of engines; what it was asked to build for."""
    asked: list[tuple[str, ...]] = []

    def build_engine(
        content: bytes, profiles: Any, settings: Any, flavour: Any, *, targets: Any, progress: Any
    ) -> _Built:
        asked.append(tuple(targets))
        progress("choosing kernels", 0.5)
        return _Built(b"plan of " + content[:64], flavour.version, tuple(targets))

    # No real version: the stages' cache is shared with the test of the real builder.
    flavour = types.SimpleNamespace(name="tensorrt_rtx", version="1.7.0.1")
    monkeypatch.setattr(plans, "build_engine", build_engine)
    monkeypatch.setattr(plans, "load_flavour", lambda name: flavour)
    monkeypatch.setattr(tensorrt_recipe, "built_for", lambda: ["7.5", "8.6", "8.9"])
    return asked


def test_plans_are_built_for_what_each_precision_can_be_built_for(
    make: Make, builder: list[tuple[str, ...]]
) -> None:
    bundle = Bundle.open(make(precision="fp8-qdq", ahead_of_time=["8.6", "8.9"]))
    assert bundle.manifest.engines is not None
    assert [(each.file, each.targets) for each in bundle.manifest.engines.plans] == [
        ("engines/image/fp16-20.tensorrt_rtx.plan", ["8.6", "8.9"]),
        ("engines/head/findings/fp16-20.tensorrt_rtx.plan", ["8.6", "8.9"]),
        ("engines/image/fp8-qdq-20.tensorrt_rtx.plan", ["8.9"]),
        ("engines/head/findings/fp8-qdq-20.tensorrt_rtx.plan", ["8.9"]),
    ]
    assert builder == [("8.6", "8.9")] * 2 + [("8.9",)] * 2
    for each in bundle.manifest.engines.plans:
        assert bundle.read(each.file).startswith(b"plan of ")


def test_a_graph_that_stays_fp32_gets_no_set_of_its_own(make: Make, builder: list[tuple[str, ...]]) -> None:
    bundle = Bundle.open(make(precision={"image": "fp32", "head": "fp16"}, ahead_of_time=["8.6"]))
    assert bundle.manifest.engines is not None
    assert [each.source for each in bundle.manifest.engines.plans] == [
        "graphs/image/fp32-20.onnx",
        "engines/head/findings/fp16-20.onnx",
    ]
    assert len(builder) == 2


def test_real_plans_travel_in_the_bundle(make: Make) -> None:
    bundle = Bundle.open(make(precision="fp16", ahead_of_time=["8.6", "8.9"]))
    assert bundle.manifest.engines is not None
    version = load_flavour("tensorrt_rtx").version
    assert [(each.file, each.targets, each.version) for each in bundle.manifest.engines.plans] == [
        ("engines/image/fp16-20.tensorrt_rtx.plan", ["8.6", "8.9"], version),
        ("engines/head/findings/fp16-20.tensorrt_rtx.plan", ["8.6", "8.9"], version),
    ]
    for each in bundle.manifest.engines.plans:
        content = bundle.read(each.file)
        assert content.startswith(b"vtrt")  # as every engine of TensorRT-RTX does
        assert len(content) > len(bundle.read(each.source)) / 2


def test_plans_that_take_fewer_prompts_than_a_repacked_bundle_has_are_left_out(
    make: Make, builder: list[tuple[str, ...]], reference_bundle: Path, tmp_path: Path
) -> None:
    own = len(Bundle.open(reference_bundle).manifest.findings)
    path = make(precision="fp16", ahead_of_time=["8.6"], prompts={"tuned": 1, "most": own})
    site = tmp_path / "site"
    site.mkdir()
    with Scorer.open(path, site=site) as scorer:
        scorer.prompts.add("rib fracture", "There is rib fracture.", keep=True)
    found = repack(path, tmp_path / "new.bundle", site=site)
    before, after = (each.manifest.engines for each in (Bundle.open(path), found.bundle))
    assert before is not None
    assert after is not None
    assert found.plans == tuple(each.file for each in before.plans)
    assert len(builder) == len(found.plans) == 2
    assert after.plans == []
    assert not set(found.plans) & set(found.bundle.manifest.files)
    assert after.settings.prompts == Range(tuned=1, most=own + 1)
