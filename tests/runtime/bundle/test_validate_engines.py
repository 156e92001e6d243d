"""Rules of what engines are compiled from and of those that travel ready made, each broken once."""

from __future__ import annotations

from typing import Any

import pytest

from promptray.runtime.backends.choice import choose_backend
from promptray.runtime.bundle.manifest import Manifest
from promptray.runtime.bundle.parse import parse_manifest
from promptray.runtime.bundle.validate_engines import PREPARE
from promptray.runtime.errors import ScoringError
from promptray.runtime.machine_class import consumers_here
from tests import bundle_factory as factory
from tests.runtime.bundle.manifest_edits import Document, Edits, edited, no_text_at_all

EDITS = Edits()
broken, sound = EDITS.broken, EDITS.sound


def source(role: str, precision: str = "fp16", opset: int = 20, head: str | None = None) -> Document:
    folder = role if head is None else f"{role}/{head}"
    return {
        "role": role,
        "head": head,
        "file": f"engines/{folder}/{precision}-{opset}.onnx",
        "precision": precision,
        "opset": opset,
    }


def plan(source: Document, targets: list[str] | None = None) -> Document:
    return {
        "file": source["file"].removesuffix(".onnx") + ".tensorrt_rtx.plan",
        "flavour": "tensorrt_rtx",
        "version": "1.7.1",
        "targets": targets or ["8.6", "8.9"],
        "source": source["file"],
    }


CALIBRATION = {"images": 8, "sha256": "0" * 64, "source": "eight films"}


def with_engines(
    doc: Document, *sources: Document, plans: tuple[Document, ...] = (), **fields: Any
) -> Document:
    engines = {"settings": {}, "sources": list(sources), "plans": list(plans), **fields}
    if any(each["precision"] != "fp32" for each in sources):
        engines.setdefault("calibration", CALIBRATION)
    for name in (*(each["file"] for each in (*sources, *plans)), fields.get("prepare")):
        if isinstance(name, str):
            doc["files"][name] = {"sha256": "0" * 64, "size": 1}
    doc["engines"] = engines
    return engines


IMAGE, HEAD = source("image"), source("head", head=factory.HEAD)
INT8 = source("image", "int8-qdq")
FP8 = source("image", "fp8-qdq")


@sound
def fp16_sources_with_plans(doc: Document) -> None:
    with_engines(doc, IMAGE, HEAD, plans=(plan(IMAGE), plan(HEAD)))


@sound
def sources_of_each_precision_and_opset(doc: Document) -> None:
    older = (source("image", "int8-qdq", 17), source("head", "fp32", 17, factory.HEAD))
    with_engines(doc, IMAGE, HEAD, INT8, FP8, *older)


@sound
def settings_alone(doc: Document) -> None:
    with_engines(doc)


@sound
def a_plan_of_an_fp32_graph_that_runs(doc: Document) -> None:
    running = [{"file": f"engines/{name}/fp32-20.onnx"} for name in ("image", f"head/{factory.HEAD}")]
    plans = [plan(each) for each in running]
    for made, graph in zip(plans, doc["graphs"], strict=False):
        made["source"] = graph["file"]
    with_engines(doc, plans=tuple(plans))


@sound
def prompts_for_all_findings_and_no_more(doc: Document) -> None:
    with_engines(doc, settings={"prompts": {"tuned": 1, "most": len(doc["findings"])}})


@sound
def prepare_graph_of_one_resize(doc: Document) -> None:
    with_engines(doc, prepare=PREPARE)


@sound
def float8_for_fewer_targets_than_the_rest(doc: Document) -> None:
    with_engines(doc, IMAGE, HEAD, FP8, plans=(plan(IMAGE), plan(HEAD), plan(FP8, ["8.9"])))


@broken("$.engines.sources[0].file is not 'engines/image/fp16-20.onnx'")
def source_in_the_folder_of_graphs_that_run(doc: Document) -> None:
    with_engines(doc, {**IMAGE, "file": "graphs/image/fp16-20.onnx"})


@broken("hold a backend without a class of machines, and the precision is 'fp16'")
def source_among_the_graphs_that_run(doc: Document) -> None:
    graph = {**doc["graphs"][0], "precision": "fp16", "consumers": ["tensorrt"]}
    graph["file"] = "graphs/image/fp16-20.onnx"
    doc["files"][graph["file"]] = {"sha256": "0" * 64, "size": 1}
    doc["graphs"].append(graph)


@broken("$.engines: file is not unique")
def source_twice(doc: Document) -> None:
    with_engines(doc, IMAGE, IMAGE)


@broken("$.files does not list 'engines/image/fp16-20.onnx'")
def source_that_is_not_listed(doc: Document) -> None:
    with_engines(doc, IMAGE)
    del doc["files"][IMAGE["file"]]


@broken("breaks the schema: Invalid enum value 'text'")
def source_of_text(doc: Document) -> None:
    with_engines(doc, source("text"))


@broken("breaks the schema: Invalid enum value 'weight-only'")
def source_of_a_precision_for_cpus(doc: Document) -> None:
    with_engines(doc, source("image", "weight-only"))


@broken("breaks the schema: Expected `int` <= 20")
def source_that_no_tensorrt_reads(doc: Document) -> None:
    with_engines(doc, source("image", opset=23))


@broken("$.engines.sources[0].head is not a head of the bundle exactly where the role is 'head'")
def source_of_an_unknown_head(doc: Document) -> None:
    with_engines(doc, source("head", head="abdomen"))


@broken("$.engines.sources[0].head is not a head of the bundle exactly where the role is 'head'")
def image_source_of_a_head(doc: Document) -> None:
    with_engines(doc, source("image", head=factory.HEAD))


@broken("$.engines.sources[0].opset has no float8")
def float8_in_an_opset_without_it(doc: Document) -> None:
    with_engines(doc, source("image", "fp8-qdq", 17))


@broken("is a second fp32 source of image and its opset")
def fp32_source_beside_the_same_graph(doc: Document) -> None:
    with_engines(doc, source("image", "fp32"))


@broken("images.most is 1025, and at most 1024")
def more_images_than_a_device_takes(doc: Document) -> None:
    with_engines(doc, settings={"images": {"tuned": 16, "most": 1025}})


@broken("$.engines.settings.images is not least, tuned and most in this order")
def tuned_beyond_the_most(doc: Document) -> None:
    with_engines(doc, settings={"images": {"tuned": 16, "most": 8}})


@broken("$.engines.settings.images.least is not 1")
def engines_that_refuse_a_single_image(doc: Document) -> None:
    with_engines(doc, settings={"images": {"least": 4, "tuned": 4, "most": 8}})


@broken("$.engines.settings.prompts.least is not 1")
def engines_that_refuse_the_bundles_own_prompts(doc: Document) -> None:
    with_engines(doc, settings={"prompts": {"least": 40, "tuned": 40, "most": 80}})


@broken("$.engines.settings.prompts.most is less than the 2 findings of the bundle")
def fewer_prompts_than_findings(doc: Document) -> None:
    with_engines(doc, settings={"prompts": {"tuned": 1, "most": 1}})


@broken("$.engines.calibration is not given exactly where a source is not fp32")
def typed_sources_without_the_images_of_their_ranges(doc: Document) -> None:
    with_engines(doc, IMAGE, HEAD, calibration=None)


@broken("$.engines.calibration is not given exactly where a source is not fp32")
def calibration_of_nothing(doc: Document) -> None:
    with_engines(doc, calibration=CALIBRATION)


@broken("$.engines.sources[2] is part of no set of engines")
def source_beside_a_newer_one(doc: Document) -> None:
    with_engines(doc, IMAGE, HEAD, source("image", opset=19))


@broken("$.engines.sources[0] is part of no set of engines")
def older_source_without_one_of_the_head(doc: Document) -> None:
    with_engines(doc, source("image", opset=17), IMAGE, HEAD)


@broken("$.engines.settings.prompts are given, and every head takes its whole fixed set")
def prompts_where_sets_are_fixed(doc: Document) -> None:
    no_text_at_all(doc)
    with_engines(doc, settings={"prompts": {"tuned": 2, "most": 8}})


@broken("$.engines.prepare is not 'engines/prepare/fp32-20.onnx'")
def prepare_graph_elsewhere(doc: Document) -> None:
    with_engines(doc, prepare="graphs/prepare.onnx")


@broken("$.engines.prepare is of a preprocessing that no such graph can do: it resizes 2 times")
def prepare_graph_of_two_resizes(doc: Document) -> None:
    steps = doc["preprocessing"]["steps"]
    steps.append({"op": "squash", "interpolation": "area", "size": doc["preprocessing"]["height"]})
    with_engines(doc, prepare=PREPARE)


@broken("$.engines.plans[0].source is no graph that engines are compiled from")
def plan_of_a_text_graph(doc: Document) -> None:
    with_engines(doc, plans=({**plan(IMAGE), "source": doc["graphs"][2]["file"]},))


@broken("$.engines.plans[0].file is not 'engines/image/fp16-20.tensorrt_rtx.plan'")
def plan_under_another_name(doc: Document) -> None:
    with_engines(doc, IMAGE, HEAD, plans=({**plan(IMAGE), "file": "engines/image.plan"}, plan(HEAD)))


@broken("breaks the schema: Invalid enum value 'tensorrt'")
def plan_of_what_is_built_on_the_device_only(doc: Document) -> None:
    with_engines(doc, IMAGE, HEAD, plans=({**plan(IMAGE), "flavour": "tensorrt"}, plan(HEAD)))


@broken("breaks the schema: Expected `str` matching regex")
def plan_for_no_compute_capability(doc: Document) -> None:
    with_engines(doc, IMAGE, HEAD, plans=(plan(IMAGE, ["sm86"]), plan(HEAD)))


@broken("$.engines.plans[0].targets is not unique")
def plan_for_a_target_twice(doc: Document) -> None:
    with_engines(doc, IMAGE, HEAD, plans=(plan(IMAGE, ["8.6", "8.6"]), plan(HEAD)))


@broken("$.engines.plans[0].targets hold one that TensorRT-RTX does not build for")
def plan_for_an_orin(doc: Document) -> None:
    with_engines(doc, IMAGE, HEAD, plans=(plan(IMAGE, ["8.7"]), plan(HEAD, ["8.7"])))


@broken("$.engines.plans[0].targets hold one that TensorRT-RTX does not build for")
def plan_for_a_hopper(doc: Document) -> None:
    with_engines(doc, IMAGE, HEAD, plans=(plan(IMAGE, ["9.0"]), plan(HEAD, ["9.0"])))


@broken("$.engines.plans[0].targets hold one that TensorRT-RTX does not build for")
def plan_for_no_gpu(doc: Document) -> None:
    with_engines(doc, IMAGE, HEAD, plans=(plan(IMAGE, ["0.0"]), plan(HEAD, ["0.0"])))


@broken("$.engines.plans[1].targets hold one without products of float32")
def float32_plan_for_a_turing(doc: Document) -> None:
    running = {"file": doc["graphs"][1]["file"]}
    made = {**plan(running, ["7.5"]), "file": f"engines/head/{factory.HEAD}/fp32-20.tensorrt_rtx.plan"}
    with_engines(doc, IMAGE, plans=(plan(IMAGE, ["7.5"]), made))


@broken("$.engines.plans[0].targets hold one without float8")
def float8_plan_for_a_gpu_without_it(doc: Document) -> None:
    with_engines(doc, HEAD, FP8, plans=(plan(FP8), plan(HEAD)))


@broken("$.engines.plans were built by several versions")
def plans_of_two_versions(doc: Document) -> None:
    with_engines(doc, IMAGE, HEAD, plans=(plan(IMAGE), {**plan(HEAD), "version": "1.6.0"}))


@broken("$.engines.plans[0] is part of no whole set of plans for 8.6")
def half_a_set_of_plans(doc: Document) -> None:
    with_engines(doc, IMAGE, HEAD, plans=(plan(IMAGE),))


@broken("$.engines.plans[0] is part of no whole set of plans for 8.6")
def plan_whose_head_is_for_another_target(doc: Document) -> None:
    with_engines(doc, IMAGE, HEAD, plans=(plan(IMAGE), plan(HEAD, ["8.9"])))


test_a_broken_manifest_is_refused, test_a_sound_manifest_is_read = EDITS.tests()


def made(*sources: Document) -> Manifest:
    return parse_manifest(edited(lambda doc: with_engines(doc, *sources)))


def files(manifest: Manifest, precision: Any, opset: int = 20) -> list[str]:
    return [each.file for each in manifest.engine_sources(precision, opset)]


def test_fp32_engines_are_compiled_from_the_graphs_that_run() -> None:
    plain = parse_manifest(factory.listed(factory.document()))
    assert files(plain, "fp32") == ["graphs/image/fp32-20.onnx", factory.HEAD_GRAPH]
    assert files(plain, "fp32", opset=17) == []
    assert files(plain, "fp16") == []


def test_a_graph_without_a_source_of_its_sets_precision_takes_part_in_a_higher_one() -> None:
    manifest = made(IMAGE, INT8, HEAD)
    assert files(manifest, "int8-qdq") == [INT8["file"], HEAD["file"]]
    assert files(manifest, "fp16") == [IMAGE["file"], HEAD["file"]]
    assert files(manifest, "fp8-qdq") == []
    assert files(made(IMAGE), "fp16") == [IMAGE["file"], factory.HEAD_GRAPH]


def test_an_older_compiler_takes_the_newest_opset_that_it_reads() -> None:
    older = [source("image", opset=17), source("head", opset=17, head=factory.HEAD)]
    manifest = made(IMAGE, HEAD, *older)
    assert files(manifest, "fp16", opset=17) == [each["file"] for each in older]
    assert files(manifest, "fp16") == [IMAGE["file"], HEAD["file"]]


def test_no_reader_runs_a_source() -> None:
    manifest = made(IMAGE, HEAD)
    for backend in ("tensorrt", "tensorrt_rtx", "onnxruntime-cuda"):
        assert manifest.graph_for("image", consumers_here(backend)) is None
        assert manifest.gated_for(consumers_here(backend)) is None
    with pytest.raises(ScoringError, match=r"backend\.unavailable"):
        choose_backend("tensorrt", threads=1, manifest=manifest)
    running = manifest.graph_for("image", consumers_here("onnxruntime-cpu"))
    assert running is not None
    assert running.precision == "fp32"
