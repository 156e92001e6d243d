"""A repository that Triton can read, whose ensemble gives the scores of the bundle on the CPU."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from promptray.export.triton import repository
from promptray.export.triton.baked_head import bake
from promptray.export.triton.config import Serving
from promptray.export.triton.repository import NAME, default_name, export_triton
from promptray.export.triton.served import check_served
from promptray.runtime.answers import Answers
from promptray.runtime.backends import HOST, load_backend
from promptray.runtime.backends.sequential import SequentialChain
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.gated import Gated, GatedHead
from promptray.runtime.deadline import Deadline
from promptray.runtime.errors import PromptRayError
from promptray.runtime.gated_answers import GatedAnswers, pack_answers
from promptray.runtime.golden import read_golden
from promptray.runtime.graph_choice import graph_for_every_machine
from promptray.runtime.graphs import own_bank
from promptray.runtime.preprocess import normalise
from promptray.runtime.scorer import Scorer
from tests.engine_bundle import disturbed
from tests.export.triton.triton_server import TritonServer
from tests.fuzz.small_bundle import write_small

BUNDLES = ["carzero_bundle", "open_clip_bundle", "asg_both_bundle"]


@pytest.fixture
def small(tmp_path: Path) -> Bundle:
    """A miniature bundle whose two prompts have different numbers of rows."""
    write_small(tmp_path)
    return Bundle.open(tmp_path / "small.bundle")


@pytest.mark.parametrize("name", BUNDLES)
def test_the_ensemble_gives_the_scores_of_the_bundle(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """From file to score: the client prepares, the ensemble scores, alone and three images at once."""
    path: Path = request.getfixturevalue(name)
    made = export_triton(path, tmp_path / "models", serving=Serving(max_batch=3))
    server = TritonServer(tmp_path / "models")
    with Scorer.open(path, site=None, threads=1) as scorer:
        manifest = scorer.bundle.manifest
        files = [path / each for each in manifest.golden.images[:3]]
        prepared = [scorer.prepare(file, modality=manifest.door.modalities[0]) for file in files]
        results = [scorer.infer(each) for each in prepared]
    pixels = [each.network_input.pixels for each in prepared]
    alone = [server.infer(made.ensemble, {"pixels": each}) for each in pixels]
    together = server.infer(made.ensemble, {"pixels": np.concatenate(pixels)})
    for head in manifest.heads:
        keys = [finding.key for finding in manifest.findings_of(head.name)]
        for number, result in enumerate(results):
            expected = [result.scores[head.name, key].logit for key in keys]
            for found in (alone[number][f"logits.{head.name}"][0], together[f"logits.{head.name}"][number]):
                assert np.abs(found - expected).max() <= head.score_tolerance
            if head.map:
                maps = np.stack([result.grid((head.name, key)) for key in keys])
                assert np.abs(together[f"maps.{head.name}"][number] - maps).max() <= head.map.tolerance
    assert np.ptp(together[f"logits.{manifest.heads[0].name}"], axis=0).max() > 1e-3, "all images alike"


@pytest.mark.parametrize("name", BUNDLES)
def test_what_a_configuration_says(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    path: Path = request.getfixturevalue(name)
    serving = Serving(max_batch=4, queue_delay=500, instances=2, threads=1)
    made = export_triton(path, tmp_path / "models", name="chest", serving=serving)
    configs = TritonServer(tmp_path / "models").configs
    bundle, manifest = made.bundle, made.bundle.manifest
    heads = [f"chest_head_{head.name}" for head in manifest.heads]
    assert list(made.models) == ["chest", "chest_image", *heads]
    assert set(configs) == set(made.models)
    for config in configs.values():
        said = {key: value.string_value for key, value in config.parameters.items()}
        assert said["promptray.bundle_sha256"] == bundle.hash
        assert said["model.licence"] == manifest.model.licence
        assert said["model.intended_use"] == manifest.model.intended_use
        assert not config.response_cache.enable
        assert config.max_batch_size == 4
    for each in ("chest_image", *heads):
        assert configs[each].dynamic_batching.max_queue_delay_microseconds == 500
        ((kind, count),) = [(group.kind, group.count) for group in configs[each].instance_group]
        assert (kind, count) == (type(configs[each].instance_group[0]).KIND_CPU, 2)
        assert configs[each].parameters["intra_op_thread_count"].string_value == "1"
        assert sorted(sample.batch_size for sample in configs[each].model_warmup) == [1, 4]
    for head, model in zip(manifest.heads, heads, strict=True):
        keys = "".join(f"{finding.key}\n" for finding in manifest.findings_of(head.name))
        assert (tmp_path / "models" / model / "labels.txt").read_text(encoding="utf-8") == keys
        assert (tmp_path / "models" / "chest" / f"labels-{head.name}.txt").read_text(encoding="utf-8") == keys
        assert configs[model].parameters["promptray.bank_id"].string_value == head.bank.id
    warm = np.fromfile(tmp_path / "models" / "chest_image" / "warmup" / "input-0", np.float32)
    golden = normalise(read_golden(bundle).pictures[:1], manifest.preprocessing)
    np.testing.assert_array_equal(warm, golden.ravel())
    content = (tmp_path / "models" / "chest_image" / "1" / "model.onnx").read_bytes()
    assert content == bundle.read(graph_for_every_machine(manifest, "image", None).file)


def test_without_batches_no_request_waits_for_another(small: Bundle, tmp_path: Path) -> None:
    export_triton(small.path, tmp_path / "models", serving=Serving(max_batch=1))
    configs = TritonServer(tmp_path / "models").configs
    assert not any(config.HasField("dynamic_batching") for config in configs.values())
    assert {config.max_batch_size for config in configs.values()} == {1}


def test_threads_are_the_servers_own_unless_they_are_stated(small: Bundle, tmp_path: Path) -> None:
    export_triton(small.path, tmp_path / "models")
    configs = TritonServer(tmp_path / "models").configs
    assert not any("intra_op_thread_count" in config.parameters for config in configs.values())


def test_the_bank_is_a_constant_of_the_head(small: Bundle) -> None:
    """Its inputs are image features alone: nobody can send another bank."""
    manifest = small.manifest
    (head,) = manifest.heads
    facts = graph_for_every_machine(manifest, "head", head.name)
    content, baked = bake(small.read(facts.file), facts, own_bank(small, head))
    model = onnx.load_from_string(content)
    features = {each.name for each in graph_for_every_machine(manifest, "image", None).outputs}
    assert {each.name for each in model.graph.input} <= features
    assert [each.name for each in model.graph.input] == [each.name for each in baked.inputs]
    assert {tensor.name for tensor in head.bank.tensors} <= {each.name for each in model.graph.initializer}
    onnx.checker.check_model(model, full_check=True)
    logits = next(each for each in baked.outputs if each.name == "logits")
    assert logits.dims == ["batch", len(manifest.findings)]


def test_graphs_of_one_class_of_machines_are_refused(small: Bundle) -> None:
    """Which class a server is, nobody knows here: a quantised graph gives other scores on another."""
    pair = "onnxruntime-cpu@x86_64-avx2"
    changed = [
        msgspec.structs.replace(graph, consumers=[pair], precision="int8") if graph.role == "image" else graph
        for graph in small.manifest.graphs
    ]
    manifest = msgspec.structs.replace(small.manifest, graphs=changed)
    with pytest.raises(PromptRayError) as refused:
        graph_for_every_machine(manifest, "image", None)
    assert refused.value.code == "backend.unavailable"
    assert refused.value.found == f"int8 for {pair}"
    # Beside an fp32 graph for every machine it is passed over.
    both = [*changed, graph_for_every_machine(small.manifest, "image", None)]
    there = graph_for_every_machine(msgspec.structs.replace(manifest, graphs=both), "image", None)
    assert there.precision == "fp32"


def test_models_that_miss_the_golden_answers_are_not_written(small: Bundle, tmp_path: Path) -> None:
    manifest = small.manifest
    (head,) = manifest.heads
    image = graph_for_every_machine(manifest, "image", None)
    facts = graph_for_every_machine(manifest, "head", head.name)
    content, baked = bake(small.read(facts.file), facts, own_bank(small, head))
    with pytest.raises(PromptRayError) as refused:
        check_served(small, (disturbed(small.read(image.file), 0.1), image), [(content, baked)], max_batch=2)
    assert refused.value.code == "gate.failed"
    check_served(small, (small.read(image.file), image), [(content, baked)], max_batch=2)


def test_a_students_models_are_held_against_its_gated_answers(small: Bundle) -> None:
    """Changed fp32 graphs that were gated on the back-end: their own answers, as gated, are the bound."""
    manifest = small.manifest
    (head,) = manifest.heads
    image = graph_for_every_machine(manifest, "image", None)
    facts = graph_for_every_machine(manifest, "head", head.name)
    baked = bake(small.read(facts.file), facts, own_bank(small, head))
    changed = disturbed(small.read(image.file), 0.01), image
    backend = load_backend(HOST, threads=1)
    pixels = normalise(read_golden(small).pictures, manifest.preprocessing)
    features = backend.load(lambda: changed[0], image).bind({}).run({"pixels": pixels})
    found = backend.load(lambda: baked[0], baked[1]).bind({}).run(features)
    answers = GatedAnswers({head.name: Answers(found["logits"], found["maps"])}, {})
    gated = Gated(
        consumer=HOST,
        answers="gates/answers.safetensors",
        heads=[GatedHead(head=head.name, score_tolerance=1e-5, map_tolerance=1e-5, report="r", page="p")],
    )

    class Student:
        manifest = msgspec.structs.replace(small.manifest, gated=[gated])
        short_hash = "student"

        def read(self, name: str) -> bytes:
            return pack_answers(answers) if name == gated.answers else small.read(name)

    served = check_served(Student(), changed, [baked], max_batch=2)
    assert [each.score_tolerance for each in served.heads] == [1e-5]
    with pytest.raises(PromptRayError) as refused:
        check_served(Student(), (small.read(image.file), image), [baked], max_batch=2)
    assert refused.value.code == "gate.failed"


def test_an_image_graph_that_mixes_the_images_of_a_batch_is_not_written(small: Bundle) -> None:
    """Right for one image at a time, wrong for several: what only dynamic batching would show."""
    manifest = small.manifest
    (head,) = manifest.heads
    image = graph_for_every_machine(manifest, "image", None)
    facts = graph_for_every_machine(manifest, "head", head.name)
    baked = bake(small.read(facts.file), facts, own_bank(small, head))
    mixing = (_mixing(small.read(image.file)), image)
    check_served(small, mixing, [baked], max_batch=1)
    with pytest.raises(PromptRayError) as refused:
        check_served(small, mixing, [baked], max_batch=2)
    assert refused.value.code == "gate.failed"
    assert "--max-batch 1" in str(refused.value.cure)


@pytest.mark.parametrize(
    ("max_batch", "expected"), [(1, {1}), (2, {1, 2}), (5, {1, 4, 5}), (32, {1, 31, 32})]
)
def test_the_batches_that_are_stated_are_those_that_ran(
    small: Bundle, max_batch: int, expected: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a batch takes more images than there are golden pictures, and none is left half full."""
    sizes: list[int] = []
    submit = SequentialChain.submit

    def recorded(self: SequentialChain, pixels: Any, limit: Deadline) -> Any:
        sizes.append(len(pixels))
        return submit(self, pixels, limit)

    monkeypatch.setattr(SequentialChain, "submit", recorded)
    manifest = small.manifest
    (head,) = manifest.heads
    image = graph_for_every_machine(manifest, "image", None)
    facts = graph_for_every_machine(manifest, "head", head.name)
    baked = bake(small.read(facts.file), facts, own_bank(small, head))
    served = check_served(small, (small.read(image.file), image), [baked], max_batch=max_batch)
    assert set(sizes) == expected
    assert all(sizes.count(size) * size >= 16 for size in expected)
    assert np.isfinite([served.heads[0].score_error, served.heads[0].batch_error]).all()


def _mixing(content: bytes) -> bytes:
    """The graph on the mean of all images of its batch."""
    model = onnx.load_from_string(content)
    graph = model.graph
    for node in graph.node:
        node.input[:] = ["mixed" if name == "pixels" else name for name in node.input]
    mean = onnx.helper.make_node("ReduceMean", ["pixels", "first_axis"], ["batch_mean"], keepdims=1)
    shape = onnx.helper.make_node("Shape", ["pixels"], ["pixels_shape"])
    spread = onnx.helper.make_node("Expand", ["batch_mean", "pixels_shape"], ["mixed"])
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "first_axis"))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([mean, shape, spread, *rest])
    return bytes(model.SerializeToString())


def test_an_output_that_exists_is_left_alone(small: Bundle, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with pytest.raises(PromptRayError) as refused:
        export_triton(small.path, tmp_path / "models")
    assert refused.value.code == "bundle.exists"
    assert list((tmp_path / "models").iterdir()) == []


def test_a_full_disk_leaves_nothing(small: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(repository, "write_new", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(PromptRayError) as refused:
        export_triton(small.path, tmp_path / "models")
    assert refused.value.code == "output.unwritable"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("bundle", "name"),
    [("chest", "chest"), ("Brust-Röntgen 2.1", "Brust-R_ntgen_2_1"), ("胸部", "promptray")],
)
def test_a_models_name_is_made_of_the_bundles(bundle: str, name: str) -> None:
    assert default_name(bundle) == name
    assert NAME.fullmatch(name)
