"""A recipe that names OpenVINO beside ONNX Runtime: every check and gate is held on both, and both score."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from promptray import BuildError, BundleError, Scorer, ScoringError
from promptray.calibrate.pipeline import build
from promptray.export import parity
from promptray.runtime import machine_class as machine_module
from promptray.runtime.answers import Answers
from promptray.runtime.backends import HOST, OPENVINO
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.parity import read_parity
from promptray.runtime.machine_class import machine_class
from promptray.runtime.result import Result
from promptray.runtime.verify import verify
from tests import bundle_factory as factory
from tests import open_clip_tiny
from tests.calibrate.pipeline.conftest import reference_recipe

BOTH = [HOST, OPENVINO]
Recipe = Callable[..., Path]


@pytest.fixture(scope="module")
def fp32(shared_dir: Path, open_clip_bundle: Path) -> Path:
    """The tiny dual encoder for both backends. Read only."""
    return open_clip_tiny.shared_bundle(shared_dir, "open-clip-both", backends=BOTH)


@pytest.fixture(scope="session")
def int8(shared_dir: Path, reference_bundle: Path, pieces: Path) -> Path:
    """The reference model quantised and gated on both. Read only."""
    output = shared_dir / "gated-both.bundle"
    with FileLock(shared_dir / "gated-both.lock"):
        if not output.exists():
            recipe = reference_recipe(shared_dir / "gated-both", pieces, backends=BOTH)
            build(recipe, output, cache=shared_dir / "cache")
    return output


def test_the_fp32_checks_are_held_on_each(fp32: Path) -> None:
    bundle = Bundle.open(fp32)
    consumers = {graph.role: graph.consumers for graph in bundle.manifest.graphs}
    assert consumers == {"image": BOTH, "head": BOTH, "text": [HOST]}
    report = read_parity(bundle)
    (other,) = report.backends
    assert other.backend.startswith("openvino 20")
    for mine, theirs in zip(report.heads, other.heads, strict=True):
        assert [each.varied for each in mine.noise] == [each.varied for each in theirs.noise]
        assert 0 < theirs.against_original.score_error <= theirs.score_tolerance
        assert theirs.against_original != mine.against_original, "another arithmetic ran"
    found = verify(fp32, site=None, backend=OPENVINO)
    assert found.golden.text_error is not None, "encoded by ONNX Runtime"


def test_a_check_that_fails_on_openvino_ends_the_build(
    open_clip_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = parity._Run.score

    def off(self: Any, *call: Any) -> Answers:
        found = score(self, *call)
        wrong = found.logits + np.float32(0.01 if self.backend.name == OPENVINO else 0)
        return Answers(wrong, found.maps)

    monkeypatch.setattr(parity._Run, "score", off)
    recipe = open_clip_tiny.write_recipe(tmp_path, backends=BOTH)
    with pytest.raises(BuildError) as refusal:
        build(recipe, tmp_path / "x.bundle", cache=open_clip_bundle.parent / "cache")
    assert refusal.value.code == "gate.failed"
    assert "openvino 20" in str(refusal.value.artefact)
    assert not (tmp_path / "x.bundle").exists()


@pytest.mark.parametrize(
    "named", [[OPENVINO], [OPENVINO, HOST], [HOST, HOST], [HOST, OPENVINO, OPENVINO], [], ["tensorrt"]]
)
def test_a_recipe_names_onnxruntime_first_and_none_twice(tmp_path: Path, named: list[str]) -> None:
    with pytest.raises(BuildError) as refusal:
        build(open_clip_tiny.write_recipe(tmp_path, backends=named), tmp_path / "x.bundle")
    assert refusal.value.code == "recipe.invalid"
    assert "backends" in str(refusal.value)


def test_a_report_that_leaves_a_backend_out_is_refused(fp32: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(fp32, copy)
    report = json.loads((copy / "parity.json").read_bytes())
    report["backends"] = []
    factory.relist(copy, "parity.json", json.dumps(report).encode())
    with pytest.raises(BundleError, match="backends") as refusal:
        verify(copy, site=None)
    assert refusal.value.code == "bundle.format"


def test_changed_graphs_are_gated_on_each(int8: Path) -> None:
    bundle, here = Bundle.open(int8), [f"{name}@{machine_class()}" for name in BOTH]
    roles = {graph.role: graph.consumers for graph in bundle.manifest.graphs}
    assert roles == {"image": here, "head": here, "text": here[:1]}
    first, second = bundle.manifest.gated
    assert [first.consumer, second.consumer] == here
    assert first.text
    assert second.text is None
    assert [(each.consumer, each.of) for each in read_parity(bundle).gates] == [
        (here[0], "scores"), (here[0], "added prompts"), (here[1], "scores"),
    ]  # fmt: skip
    assert bundle.read(first.answers) != bundle.read(second.answers), "each has answers of its own"
    left = {path.name for path in int8.with_name(f"{int8.name}.gate").iterdir()}
    names = {f"head-{head.name}.json" for head in bundle.manifest.heads}
    assert names | {f"openvino-{name}" for name in names} <= left


@pytest.mark.parametrize("backend", BOTH)
def test_each_gives_its_own_gated_answers(int8: Path, pieces: Path, backend: str) -> None:
    verify(int8, site=None, backend=backend)
    with (
        Scorer.open(int8, site=None, backend=backend) as scorer,
        Scorer.open(int8, site=None, backend=HOST) as host,
    ):
        assert scorer.backend.gated_as == f"{backend}@{machine_class()}"
        films = sorted((pieces / "gate").iterdir())[:4]
        modality = scorer.bundle.manifest.door.modalities[0]
        for one, other in zip(
            *(each.score_many(films, modality=modality) for each in (scorer, host)), strict=True
        ):
            assert isinstance(one, Result)
            assert isinstance(other, Result)
            for key, score in one.scores.items():
                assert score.logit == pytest.approx(other.scores[key].logit, abs=0.2)
        scorer.prompts.add("new", "There is a rib fracture")


def test_graphs_gated_on_onnxruntime_alone_are_refused_on_openvino(gated_bundle: Path) -> None:
    with pytest.raises(ScoringError) as refusal:
        Scorer.open(gated_bundle, site=None, backend=OPENVINO)
    assert refusal.value.code == "backend.unavailable"
    assert f"onnxruntime-cpu@{machine_class()}" in str(refusal.value.found)
    assert "backends: [onnxruntime-cpu, openvino]" in str(refusal.value.cure)


def test_another_class_of_machines_is_refused(int8: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gated_on = f"openvino@{machine_class()}"
    monkeypatch.setattr(machine_module, "machine_class", lambda: "x86_64-other")
    with pytest.raises(ScoringError, match="another class of machine") as refusal:
        Scorer.open(int8, site=None, backend=OPENVINO)
    assert refusal.value.expected == gated_on
