"""A miniature bundle on a simulated GPU, with engines or with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from promptray.runtime.backends import GpuOptions
from promptray.runtime.backends import onnxruntime_cuda as module
from promptray.runtime.backends.onnxruntime_cuda import OnnxRuntimeCuda
from promptray.runtime.bundle import Bundle
from promptray.runtime.engines.store import EngineStore
from promptray.runtime.site import Site
from tests.engine_factory import engine_set
from tests.fake_cuda import Gpu, simulated
from tests.fake_tensorrt import TensorRT, simulated_tensorrt
from tests.fuzz.small_bundle import write_small
from tests.simulated_engines import device_of


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of a few kilobytes with image, head and text graph. Read only."""
    folder = tmp_path_factory.mktemp("miniature")
    write_small(folder)
    return Bundle.open(folder / "small.bundle")


@pytest.fixture
def tensorrt() -> Iterator[tuple[Gpu, TensorRT]]:
    """A simulated GPU with TensorRT; at the end nothing may be held, and no rule be broken."""
    with simulated_tensorrt() as (gpu, library):
        yield gpu, library
        gpu.assert_clean()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An empty site directory."""
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


@pytest.fixture
def gated(miniature: Bundle, site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    """The record of a gate on a simulated GPU, and the backend on the processor's provider and memory."""

    def open_backend(**given: Any) -> OnnxRuntimeCuda:
        given["options"] = given["options"] or GpuOptions()
        return OnnxRuntimeCuda(
            given["engines"], given["options"], threads=1, provider="CPUExecutionProvider", memory="cpu"
        )

    monkeypatch.setattr(module, "version_here", lambda name: ort.__version__)
    monkeypatch.setattr(module, "open_backend", open_backend)
    with simulated() as gpu:
        facts = engine_set(
            miniature.manifest, {}, backend="onnxruntime-cuda", version=ort.__version__, device=device_of(gpu)
        )
        EngineStore(Site.open(site, miniature.hash), miniature.manifest).add(facts, {})
        yield gpu
