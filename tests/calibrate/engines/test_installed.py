"""The real builder behind the command: TensorRT-RTX compiles for a GPU that is only simulated here."""

from __future__ import annotations

import importlib.util
import sys
import threading
from pathlib import Path

import pytest

from promptray.calibrate.engines.build import Asked, build_set
from promptray.calibrate.engines.installed import OnnxRuntimeCuda, TensorRt, open_library
from promptray.runtime.bundle import Bundle
from promptray.runtime.engines.settings import Settings
from promptray.runtime.engines.sources import as_graph, sources
from promptray.runtime.engines.store import EngineStore
from promptray.runtime.errors import PromptRayError
from promptray.runtime.site import Site
from tests.engine_bundle import HEAD, write_with_sources
from tests.fake_cuda import Gpu, simulated
from tests.rtx import needs_rtx

pytestmark = needs_rtx


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_with_sources(tmp_path_factory.mktemp("sources") / "mini.bundle")


def test_every_graph_of_a_set_is_compiled_for_the_gpu_that_is_here(bundle: Bundle, tmp_path: Path) -> None:
    said: list[tuple[str, float]] = []
    with simulated(Gpu(compute_capability=(8, 6))):
        library = open_library("tensorrt_rtx", tmp_path)
        graphs = sources(bundle.manifest, library.backend, library.version)
        plans = [
            library.compile(
                bundle, as_graph(graph, bundle.manifest), Settings(), lambda *told: said.append(told),
                threading.Event(),
            )
            for graph in graphs
        ]  # fmt: skip
    assert [graph.title for graph in graphs] == ["image", f"head {HEAD}"]
    assert all(len(plan) > 1000 for plan in plans)
    assert library.device.compute_capability == "8.6"
    assert list(tmp_path.iterdir()) == []  # TensorRT-RTX measures nothing that could be kept


def test_a_gpu_that_the_library_is_not_for_is_refused_before_anything_is_compiled(
    bundle: Bundle, tmp_path: Path
) -> None:
    with simulated(Gpu(compute_capability=(9, 0))), pytest.raises(PromptRayError) as caught:
        build_set(
            bundle, EngineStore(Site.open(tmp_path, bundle.hash), bundle.manifest),
            open_library("tensorrt_rtx", None), Asked(), progress=lambda *_: None,
        )  # fmt: skip
    assert caught.value.code == "engine.target"
    assert list(tmp_path.iterdir()) == []


def test_without_a_gpu_or_a_library_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "tensorrt" else find(name, *more)
    )
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PromptRayError) as no_tensorrt:
        TensorRt("tensorrt", None)
    assert no_tensorrt.value.code == "engine.unavailable"
    with pytest.raises(PromptRayError) as no_cuda:
        OnnxRuntimeCuda()
    assert no_cuda.value.code == "backend.unavailable"
    with pytest.raises(PromptRayError) as no_gpu:
        TensorRt("tensorrt_rtx", None)
    assert no_gpu.value.code == "backend.unavailable"
