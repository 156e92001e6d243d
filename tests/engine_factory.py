"""Sets of engines for tests: facts of a device that is not here, plans that are mere bytes or ONNX."""

from __future__ import annotations

from typing import Any

import msgspec

from promptray.runtime.bundle.manifest import Manifest
from promptray.runtime.engines.bounds import MOST_LEVELS
from promptray.runtime.engines.facts import Device, EngineGate, EngineSet, EngineSpeed, HeadGate, PrepareGate
from promptray.runtime.engines.settings import Settings
from promptray.runtime.engines.sources import facts_of, precision_of, sources

ORIN = Device(name="Orin", compute_capability="8.7", multiprocessors=8)
ADA = Device(name="NVIDIA RTX 4000 Ada Generation", compute_capability="8.9", multiprocessors=48)
VERSION = "10.3.0"


def gate(manifest: Manifest, **changes: Any) -> EngineGate:
    """A gate that every head passed."""
    heads = [
        HeadGate(
            head=head.name,
            score_error=1e-5,
            score_tolerance=10 * head.score_tolerance,
            map_error=1e-7 if head.map else None,
            map_tolerance=10 * head.map.tolerance if head.map else None,
        )
        for head in manifest.heads
    ]
    return msgspec.structs.replace(EngineGate(pictures=len(manifest.golden.images), heads=heads), **changes)


def prepare_gate(manifest: Manifest) -> PrepareGate:
    """A gate that the engine that prepares images passed."""
    plain = gate(manifest)
    return PrepareGate(
        pictures=plain.pictures, level_error=0.5, level_tolerance=MOST_LEVELS, heads=plain.heads
    )


def engine_set(manifest: Manifest, plans: dict[str, bytes], **changes: Any) -> EngineSet:
    """Facts of a set of fp32 engines for ORIN that hold these plans."""
    graphs = sources(manifest, "tensorrt", VERSION, "fp32")
    facts = EngineSet(
        backend="tensorrt",
        version=VERSION,
        device=ORIN,
        precision=precision_of(graphs),
        graphs=facts_of(graphs, manifest),
        settings=Settings(),
        build_seconds=61.5,
        bytes=sum(map(len, plans.values())),
        gate=gate(manifest),
        speed=EngineSpeed(milliseconds=3.0),
        built="2026-01-31T12:00:00Z",
    )
    return msgspec.structs.replace(facts, **changes)
