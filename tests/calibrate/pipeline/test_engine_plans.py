"""Plans that travel in the bundle, built ahead of time; TensorRT-RTX's builder has its own tests."""

from __future__ import annotations

import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from promptray import Scorer
from promptray.calibrate.pipeline import plans, tensorrt_recipe
from promptray.export.repack import repack
from promptray.export.tensorrt import load_flavour
from promptray.runtime.bundle import Bundle
from promptray.runtime.engines.settings import Range
from tests.calibrate.pipeline.conftest import Make


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
    assert [(each.file, each.kept) for each in found.plans] == [(each.file, False) for each in before.plans]
    assert len(builder) == len(found.plans) == 2
    assert after.plans == []
    assert not {each.file for each in found.plans} & set(found.bundle.manifest.files)
    assert after.settings.prompts == Range(tuned=1, most=own + 1)
