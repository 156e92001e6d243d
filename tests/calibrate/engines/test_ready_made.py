"""Plans that travel in the bundle are gated on the device like any other, and need no build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from promptray.calibrate.engines.build import Asked, build_set
from promptray.runtime.bundle import Bundle, write_bundle
from promptray.runtime.bundle.engines import EnginePlan
from promptray.runtime.engines.settings import Settings
from promptray.runtime.engines.store import EngineStore
from promptray.runtime.errors import PromptRayError
from promptray.runtime.site import Site
from tests.engine_bundle import HEAD, CpuLibrary, disturbed, timed, write_with_sources
from tests.engine_factory import ADA, ORIN

VERSION = "1.7.1.116"
IMAGE, HEAD_GRAPH = "graphs/image/fp32-20.onnx", f"graphs/head/{HEAD}/fp32-20.onnx"
PLANS = {
    IMAGE: "engines/image/fp32-20.tensorrt_rtx.plan",
    HEAD_GRAPH: f"engines/head/{HEAD}/fp32-20.tensorrt_rtx.plan",
}


def write_with_plans(path: Path, spoil: Any = None) -> Bundle:
    """A bundle that carries fp32 plans of TensorRT-RTX for 8.9; here a plan is the ONNX file."""
    plain = write_with_sources(path.parent / "without.bundle")
    assert plain.manifest.engines is not None
    plans = [
        EnginePlan(file=file, flavour="tensorrt_rtx", version=VERSION, targets=["8.9"], source=source)
        for source, file in PLANS.items()
    ]
    section = msgspec.structs.replace(plain.manifest.engines, plans=plans)
    files: dict[str, bytes | Path] = {name: plain.path / name for name in plain.manifest.files}
    for source, file in PLANS.items():
        content = plain.read(source)
        files[file] = spoil(content) if spoil and source == IMAGE else content
    return write_bundle(path, msgspec.structs.replace(plain.manifest, engines=section, files={}), files)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_with_plans(tmp_path_factory.mktemp("plans") / "with.bundle")


def build(bundle: Bundle, root: Path, library: CpuLibrary, **asked: Any) -> tuple[str, EngineStore]:
    store = EngineStore(Site.open(root, bundle.hash), bundle.manifest)
    outcome = build_set(
        bundle, store, library, Asked(**asked), progress=lambda *_: None, measure=timed(own=1.0)
    )
    return outcome.plans, store


def library(**changes: Any) -> CpuLibrary:
    return CpuLibrary(**{"backend": "tensorrt_rtx", "version": VERSION, "device": ADA, **changes})


def test_they_are_gated_and_stored_without_a_build(bundle: Bundle, tmp_path: Path) -> None:
    rtx = library()
    origin, store = build(bundle, tmp_path, rtx)
    assert (origin, rtx.compiled) == ("of the bundle", [])
    found = store.find("tensorrt_rtx", VERSION, ADA)
    assert found.facts.gate.title == "golden"
    assert bytes(found.plan("image")) == bundle.read(PLANS[IMAGE])


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({"version": "1.8.0"}, {}),
        ({"device": ORIN}, {}),
        ({"backend": "tensorrt", "version": "10.3.0"}, {}),
        ({}, {"rebuild": True}),
        ({}, {"settings": Settings(workspace_bytes=1 << 20)}),
    ],
    ids=["another version", "another GPU", "another library", "asked to build", "other settings"],
)
def test_what_they_are_not_for_is_compiled(
    bundle: Bundle, tmp_path: Path, changes: dict[str, Any], asked: dict[str, Any]
) -> None:
    rtx = library(**changes)
    origin, _ = build(bundle, tmp_path, rtx, **asked)
    assert (origin, len(rtx.compiled)) == ("compiled", 2)


def test_wrong_ones_are_refused_by_the_golden_gate(tmp_path: Path) -> None:
    wrong = write_with_plans(tmp_path / "wrong.bundle", lambda content: disturbed(content, 0.3))
    root = tmp_path / "site"
    root.mkdir()
    with pytest.raises(PromptRayError) as caught:
        build(wrong, root, library())
    assert caught.value.code == "gate.failed"
    assert list(root.iterdir()) == []
