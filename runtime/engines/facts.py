"""What is known of a set of engines: what they were made from, for which device, and the gate they passed.

A set is everything one backend needs to score with a bundle on one device: the image graph and every head,
compiled together, gated together, stored and replaced together. Half a set is never used.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from promptray.runtime.bundle.fields import Count, HeadName, Sha256, Text
from promptray.runtime.engines.settings import Capability, Range, Settings, Size

__all__ = [
    "Device",
    "EngineGate",
    "EngineSet",
    "EngineSpeed",
    "HeadGate",
    "ImagesGate",
    "PrepareGate",
    "Range",
    "Settings",
    "SourceGraph",
    "engine_key",
]

EngineBackend = Literal["tensorrt", "tensorrt_rtx", "onnxruntime-cuda"]


#: How engines are built and run beyond their settings, where that decides what they compute.
_WAYS = {
    "tensorrt": "strict NaNs where the version has them",
    "tensorrt_rtx": "strict NaNs, eager kernels but to prepare",
    "onnxruntime-cuda": "deterministic, default convolutions",
}


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the structures: immutable, keyword-only, closed."""


class Device(_Struct, frozen=True, kw_only=True):
    """A GPU, by what decides which engine it can run and how that engine computes."""

    name: Text
    compute_capability: Capability
    """``"8.7"`` is Orin, ``"9.0"`` Hopper."""
    multiprocessors: Size

    @property
    def title(self) -> str:
        """What people call it."""
        return f"{self.name} (compute capability {self.compute_capability})"


class SourceGraph(_Struct, frozen=True, kw_only=True):
    """The ONNX graph that an engine was compiled from."""

    role: Literal["image", "head", "prepare"]
    head: HeadName | None
    file: Text
    """Its name in the bundle."""
    sha256: Sha256
    precision: Text

    @property
    def title(self) -> str:
        """What people call it: its role, of a head with its name."""
        return self.role if self.head is None else f"{self.role} {self.head}"


class HeadGate(_Struct, frozen=True, kw_only=True):
    """Largest differences of one head's scores and maps to the original's, on the golden pictures."""

    head: HeadName
    score_error: float
    score_tolerance: float
    map_error: float | None
    map_tolerance: float | None

    @property
    def passed(self) -> bool:
        """Whether both are within their tolerances."""
        return self.score_error <= self.score_tolerance and (self.map_error or 0.0) <= (
            self.map_tolerance or 0.0
        )

    @property
    def allowed(self) -> str:
        """Its tolerances, for people."""
        return _said(self.head, self.score_tolerance, self.map_tolerance)

    @property
    def found(self) -> str:
        """Its errors, for people."""
        return _said(self.head, self.score_error, self.map_error)


def _said(head: str, scores: float, maps: float | None) -> str:
    return f"{head}: scores {scores:.3g}" + ("" if maps is None else f", maps {maps:.3g}")


class PrepareGate(_Struct, frozen=True, kw_only=True):
    """The engine that prepares images: its pixels, and the scores of golden pictures."""

    pictures: Size
    level_error: float
    """Largest difference to the CPU's pixels, in grey levels, also of synthetic frames of 16 bits."""
    level_tolerance: float
    heads: Annotated[list[HeadGate], Meta(min_length=1)]

    @property
    def passed(self) -> bool:
        """Whether levels, scores and maps are within their tolerances."""
        return self.level_error <= self.level_tolerance and all(head.passed for head in self.heads)


class ImagesGate(_Struct, frozen=True, kw_only=True):
    """The gates of ``docs/gates.md`` on images, held on this device."""

    images: Size
    sha256: Sha256
    """Of the set of images, as in the gates' report."""
    report: Sha256
    """Of the report. That of engines stays outside of the site directory."""

    @property
    def title(self) -> str:
        """``images(n, hash)``."""
        return f"images({self.images}, {self.sha256[:12]})"


class EngineGate(_Struct, frozen=True, kw_only=True):
    """The gate of a set of engines on its device: golden pictures always, images where given."""

    pictures: Size
    heads: Annotated[list[HeadGate], Meta(min_length=1)]
    images: ImagesGate | None = None
    prepare: PrepareGate | None = None
    """None: the set has no engine that prepares images."""

    @property
    def title(self) -> str:
        """``golden`` or ``images(n, hash)``."""
        return self.images.title if self.images else "golden"


class EngineSpeed(_Struct, frozen=True, kw_only=True):
    """Time of a call with one image and the bundle's own prompts, beside another set's in the same rounds."""

    milliseconds: float
    beside: Text | None = None
    """Precision of the other set: fp16 for int8 and fp8; None: nothing to compare with."""
    ratio: float | None = None
    """Time over the other's, median of rounds; with quartiles."""
    quartiles: tuple[float, float] | None = None


class EngineFacts(_Struct, frozen=True, kw_only=True):
    """Engines as they were compiled: of which graphs, by which library, for which device. No gate yet."""

    backend: EngineBackend
    version: Text
    """Of the library that built and runs it."""
    device: Device
    precision: Text
    """One word where all graphs have the same, else each with its precision."""
    graphs: Annotated[list[SourceGraph], Meta(min_length=1)]
    settings: Settings
    build_seconds: float
    bytes: Count
    """Of the engines together; 0 where the backend keeps none (ONNX Runtime)."""
    cuda_graphs: bool = True
    """Whether calls run as a recorded CUDA graph, while the gate is held and in use. No part of the key: what
    is computed is the same."""

    @property
    def title(self) -> str:
        """What people call them."""
        return f"{self.backend} {self.version} {self.precision}, {self.device.title}"

    @property
    def prepares(self) -> bool:
        """Whether it has an engine that prepares images."""
        return any(graph.role == "prepare" for graph in self.graphs)

    @property
    def key(self) -> str:
        """Name of its entry (see :func:`engine_key`)."""
        return engine_key(self.backend, self.version, self.device, self.graphs, self.settings)


class EngineSet(EngineFacts, frozen=True, kw_only=True):
    """Engines that passed their gate: facts of an entry of kind ``engine``; its payload holds the plans."""

    format_version: Literal[1] = 1
    gate: EngineGate
    speed: EngineSpeed | None
    built: Text
    """Date, ISO 8601."""


def engine_key(
    backend: str, version: str, device: Device, graphs: list[SourceGraph], settings: Settings
) -> str:
    """Return the name of a set of engines: whatever changes what is computed changes it.

    Returns
    -------
    str
        ``backend-`` and 32 hexadecimal digits.
    """
    by_file = sorted(graphs, key=lambda each: each.file)
    facts = msgspec.to_builtins([version, device, by_file, settings, _WAYS[backend]])
    content = json.dumps(facts, sort_keys=True, ensure_ascii=True).encode()
    return f"{backend}-{hashlib.sha256(content).hexdigest()[:32]}"
