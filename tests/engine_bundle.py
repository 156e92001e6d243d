"""A miniature bundle with sources of engines, and a library that compiles them for a GPU that is not here.

Its engines are the ONNX graphs themselves, run by ONNX Runtime on the CPU: what is tested is the way from a
bundle to a gated set, not TensorRT.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import numpy_helper

from promptray.calibrate.engines.library import Told
from promptray.runtime.backends import load_backend
from promptray.runtime.backends.choice import OpenedEngines
from promptray.runtime.bundle import Bundle, write_bundle
from promptray.runtime.bundle.calibration_set import CalibrationSet
from promptray.runtime.bundle.engines import Engines as EnginesSection
from promptray.runtime.bundle.engines import EngineSource
from promptray.runtime.bundle.manifest import Graph, Manifest
from promptray.runtime.bundle.parity import CheckedSources, ParityReport
from promptray.runtime.engines.facts import Device, EngineBackend
from promptray.runtime.engines.settings import Settings
from promptray.runtime.engines.sources import source_sets
from promptray.runtime.errors import BuildError
from promptray.runtime.graphs import Graphs
from tests import bundle_factory as factory
from tests.engine_factory import ORIN, VERSION, gate
from tests.fuzz.small_bundle import write_small


def disturbed(content: bytes, by: float) -> bytes:
    """A graph whose weights are off by a share of their own size."""
    model = onnx.load_from_string(content)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            noise = np.random.default_rng(3).normal(1, by, values.shape)
            tensor.CopyFrom(numpy_helper.from_array((values * noise).astype(np.float32), tensor.name))
    return bytes(model.SerializeToString())


def write_with_sources(path: Path, *precisions: str) -> Bundle:
    """Write the miniature bundle with image graphs in these precisions beside fp32."""
    write_small(path.parent)
    plain = Bundle.open(path.parent / "small.bundle")
    image = plain.read("graphs/image/fp32-20.onnx")
    sources, files = [], {name: plain.path / name for name in plain.manifest.files}
    added: dict[str, bytes | Path] = {}
    for precision in precisions:
        source = EngineSource(
            role="image",
            file=f"engines/image/{precision}-20.onnx",
            precision=precision,
            opset=20,  # type: ignore[arg-type]
        )
        sources.append(source)
        added[source.file] = disturbed(image, 1e-4)
    calibration = CalibrationSet(images=8, sha256="0" * 64, source="none: the graphs are fp32 inside")
    section = EnginesSection(
        settings=Settings(),
        sources=sources,
        calibration=calibration if any(each.precision != "fp32" for each in sources) else None,
    )
    manifest = msgspec.structs.replace(plain.manifest, engines=section, files={})
    added[manifest.parity] = _with_sources(plain.read(manifest.parity), manifest)
    return write_bundle(path, manifest, {**files, **added})


def _with_sources(parity: bytes, manifest: Manifest) -> bytes:
    """The report of a build that held every set with a typed graph against the golden answers."""
    report = msgspec.json.decode(parity, type=ParityReport)
    held = [
        CheckedSources(precision=each.precision, opset=each.opset, backend="none", heads=gate(manifest).heads)
        for each in source_sets(manifest)
        if each.precision != "fp32"
    ]
    return msgspec.json.encode(msgspec.structs.replace(report, sources=held))


@dataclass(frozen=True)
class _Running:
    """The bundle with the engines' graphs in the place of its own."""

    bundle: Bundle
    engines: OpenedEngines

    @property
    def manifest(self) -> Manifest:
        own = self.bundle.manifest
        graphs = [msgspec.structs.replace(each, file=self._name(each)) for each in own.graphs]
        return msgspec.structs.replace(own, graphs=graphs)

    @staticmethod
    def _name(graph: Graph) -> str:
        return graph.file if graph.role == "text" else f"{graph.role} {graph.head}"

    @property
    def short_hash(self) -> str:
        return self.bundle.short_hash

    def read(self, name: str) -> bytes:
        for graph in self.bundle.manifest.graphs:
            if graph.role != "text" and self._name(graph) == name:
                if self.engines.facts.bytes == 0:  # compiled when they are opened
                    return self.bundle.read(graph.file)
                return bytes(self.engines.plan(graph.role, graph.head))
        return self.bundle.read(name)


@dataclass
class CpuLibrary:
    """Stands for TensorRT: a plan is the ONNX file.

    Attributes
    ----------
    spoil : callable
        What becomes of a graph's bytes when it is compiled.
    compiled : list of str
        Files that were compiled.
    """

    backend: EngineBackend = "tensorrt"
    version: str = VERSION
    device: Device = ORIN
    keeps_plans: bool = True
    spoil: Callable[[bytes], bytes] = lambda content: content
    compiled: list[str] = field(default_factory=list)

    def compile(
        self, bundle: Bundle, graph: Graph, settings: Settings, told: Told, cancelled: threading.Event
    ) -> bytes:
        if cancelled.is_set():
            raise BuildError("engine.cancelled", "cancelled", cure="run it again")
        told("tactics", 0.5)
        self.compiled.append(graph.file)
        content = bundle.read(graph.file)
        return self.spoil(content) if graph.role == "image" else content

    @contextmanager
    def opened(self, bundle: Bundle, engines: OpenedEngines) -> Iterator[Graphs]:
        cpu = load_backend("onnxruntime-cpu", threads=1)
        yield Graphs(_Running(bundle, engines), cpu, prompts_per_batch=None)


class WrongLibrary(CpuLibrary):
    """Engines whose scores are changed on the way out.

    Attributes
    ----------
    change : callable
        Pixels and the scores of a head (logits or maps, a row an image) -> what is answered.
    """

    def __init__(self, change: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.change = change

    @contextmanager
    def opened(self, bundle: Bundle, engines: OpenedEngines) -> Iterator[Graphs]:
        with super().opened(bundle, engines) as graphs:
            chain = graphs.chain
            graphs.chain = lambda heads: _WrongChain(chain(heads), self.change)  # type: ignore[assignment, method-assign, return-value]
            yield graphs


@dataclass(frozen=True)
class _WrongChain:
    right: Any
    change: Callable[[Any, Any], Any]

    def run(self, pixels: Any) -> list[Any]:
        return [
            tuple(None if each is None else self.change(pixels, each) for each in scores)
            for scores in self.right.run(pixels)
        ]


def timed(**milliseconds: float) -> Any:
    """A measurement that finds these times: of ``own``, and of a precision."""

    def measure(calls: Any, baseline: str) -> dict[str, dict[str, float]]:
        for call in calls.values():
            call()
        own = milliseconds["own"]
        share = own / milliseconds.get(baseline.replace("-", "_"), own)
        return {"own": {"median_ms": own, "ratio": share, "ratio_q1": share * 0.95, "ratio_q3": share * 1.05}}

    return measure


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


HEAD = factory.HEAD
