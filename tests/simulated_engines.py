"""Sets of engines for the simulated TensorRT: plans of a bundle's own graphs, stored in a site as gated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from promptray.export.tensorrt import prepare_profile
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.manifest import Graph, Head
from promptray.runtime.bundle.validate_engines import PREPARE
from promptray.runtime.engines.facts import Device, EngineSet
from promptray.runtime.engines.plans import plan_name
from promptray.runtime.engines.sources import as_graph, prepare_source, sources
from promptray.runtime.engines.store import EngineStore
from promptray.runtime.prepare_graph import PrepareFacts
from promptray.runtime.site import Site
from tests.engine_factory import engine_set, gate, prepare_gate
from tests.fake_cuda import Gpu
from tests.fake_tensorrt import VERSION, Profile, make_plan


def device_of(gpu: Gpu) -> Device:
    """The facts of a simulated GPU."""
    capability = "{}.{}".format(*gpu.compute_capability)
    return Device(name=gpu.name, compute_capability=capability, multiprocessors=gpu.multiprocessors)


def profiles(graph: Graph, head: Head | None, *, images: int = 4, prompts: int = 64) -> list[Profile]:
    """One profile for each row bucket of a head's bank; one where it has none."""
    buckets = head.bank.row_buckets if head else []
    found = []
    for rows in buckets or [0]:
        sizes = {"batch": (1, 1, images), "prompts": (1, 2, prompts), "rows": (rows, rows, rows)}
        profile = {}
        for tensor in graph.inputs:
            ranges = [sizes[dim] if isinstance(dim, str) else (dim, dim, dim) for dim in tensor.dims]
            profile[tensor.name] = tuple(zip(*ranges, strict=True))
        found.append(profile)
    return found


def plans_of(
    bundle: Bundle, gpu: Gpu, *, version: str = VERSION, shares_profiles: bool | None = None, **most: int
) -> dict[str, bytes]:
    """Plans of the fp32 graphs of a bundle."""
    manifest = bundle.manifest
    plans = {}
    for source in sources(manifest, "tensorrt", VERSION, "fp32"):
        head = manifest.head(source.head) if source.head else None
        plans[plan_name(source.role, source.head)] = make_plan(
            bundle.read(source.file),
            profiles(as_graph(source, manifest), head, **most),
            version=version,
            compute_capability=gpu.compute_capability,
            shares_profiles=shares_profiles,
        )
    return plans


def prepare_plan(content: bytes, bundle: Bundle, gpu: Gpu, *, version: str = VERSION) -> bytes:
    """The plan of a graph that prepares the images of a bundle."""
    assert bundle.manifest.engines
    facts = PrepareFacts.of(PREPARE, bundle.manifest.preprocessing)
    profile = prepare_profile(facts, bundle.manifest.engines.settings).shapes
    return make_plan(content, [profile], version=version, compute_capability=gpu.compute_capability)


def store_preparing_engines(
    bundle: Bundle, site: Path, gpu: Gpu, *, content: bytes | None = None, **changes: Any
) -> EngineSet:
    """Store a set that also prepares images, by another graph than the bundle's where one is given."""
    manifest = bundle.manifest
    plans = plans_of(bundle, gpu) | {"prepare": prepare_plan(content or bundle.read(PREPARE), bundle, gpu)}
    device = device_of(gpu)
    prepare = prepare_source(manifest, "tensorrt", VERSION, device)
    assert prepare
    assert manifest.engines
    plain = engine_set(manifest, plans, device=device)
    stated = {
        "graphs": [*plain.graphs, prepare],
        "settings": manifest.engines.settings,
        "gate": gate(manifest, prepare=prepare_gate(manifest)),
    }
    facts = msgspec.structs.replace(plain, **{**stated, **changes})
    EngineStore(Site.open(site, bundle.hash), manifest).add(facts, plans)
    return facts


def store_engines(
    bundle: Bundle,
    site: Path,
    gpu: Gpu,
    *,
    most: dict[str, int] | None = None,
    shares_profiles: bool | None = None,
    **changes: Any,
) -> EngineSet:
    """Store a set for the simulated GPU as if it had been gated; return its facts."""
    site.mkdir(exist_ok=True)
    version = changes.get("version", VERSION)
    plans = plans_of(bundle, gpu, version=version, shares_profiles=shares_profiles, **(most or {}))
    facts = engine_set(bundle.manifest, plans, device=device_of(gpu), **changes)
    EngineStore(Site.open(site, bundle.hash), bundle.manifest).add(facts, plans)
    return facts
