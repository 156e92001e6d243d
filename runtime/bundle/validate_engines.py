"""Rules of a manifest about engines: what they are compiled from, and those that travel ready made."""

from __future__ import annotations

from typing import get_args

from promptray.runtime.bundle.engines import (
    NEWEST_OPSET,
    OLDEST_OPSET,
    EnginePlan,
    Engines,
    EngineSource,
    Precision,
)
from promptray.runtime.bundle.manifest import Manifest
from promptray.runtime.bundle.refusal import refuse, unique
from promptray.runtime.bundle.validate_preprocessing import prepare_fault
from promptray.runtime.engines.settings import Range

PREPARE = f"engines/prepare/fp32-{NEWEST_OPSET}.onnx"
#: First opset and first compute capability that have float8.
FP8_OPSET, FP8_TARGET = 19, (8, 9)
#: Compute capabilities that TensorRT-RTX 1 builds for; 7.5 has no products of float32 there.
RTX_TARGETS = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
RTX_FP32_TARGET = (8, 0)


def check_engines(manifest: Manifest) -> None:
    """Check what a manifest says of engines.

    Raises
    ------
    BundleError
        ``bundle.format``.
    """
    engines = manifest.engines
    if engines is None:
        return
    _check_settings(engines, manifest)
    unique("$.engines: file", engines.files)
    for index, source in enumerate(engines.sources):
        _check_source(f"$.engines.sources[{index}]", source, manifest)
    _check_sources_make_sets(engines, manifest)
    _check_calibration(engines)
    _check_prepare(engines, manifest)
    known = {each.file: each for each in manifest.all_engine_sources}
    for index, plan in enumerate(engines.plans):
        _check_plan(f"$.engines.plans[{index}]", plan, known)
    _check_plans_make_sets(engines, manifest)


def _check_settings(engines: Engines, manifest: Manifest) -> None:
    settings = engines.settings
    for name, sizes in (
        ("images", settings.images),
        ("prompts", settings.prompts),
        ("sides", settings.sides),
    ):
        if sizes is not None:
            _check_range(f"$.engines.settings.{name}", sizes)
    if settings.prompts is not None:
        _check_prompts("$.engines.settings.prompts", settings.prompts, manifest)


def _check_range(where: str, sizes: Range) -> None:
    if not sizes.rises:
        found = f"{sizes.least}, {sizes.tuned}, {sizes.most}"
        refuse(where, "is not least, tuned and most in this order", found)
    if sizes.least != 1:  # a user may score one image, small as it may be, with one prompt
        refuse(f"{where}.least", "is not 1", str(sizes.least))


def _check_prompts(where: str, sizes: Range, manifest: Manifest) -> None:
    free = manifest.free_head
    if free is None:
        refuse(where, "are given, and every head takes its whole fixed set", str(sizes.most))
    own = len(manifest.findings_of(free.name))
    if sizes.most < own:
        refuse(f"{where}.most", f"is less than the {own} findings of the bundle", str(sizes.most))


def _check_source(where: str, source: EngineSource, manifest: Manifest) -> None:
    if (source.role == "head") != (source.head is not None) or (
        source.head is not None and manifest.head(source.head) is None
    ):
        refuse(f"{where}.head", "is not a head of the bundle exactly where the role is 'head'", source.head)
    if source.file != (name := f"{source.stem}.onnx"):
        refuse(f"{where}.file", f"is not {name!r}", source.file)
    if source.precision == "fp8-qdq" and source.opset < FP8_OPSET:
        refuse(f"{where}.opset", f"has no float8, which opset {FP8_OPSET} brought", str(source.opset))
    twice = [
        graph.file
        for graph in manifest.graphs
        if (graph.role, graph.head, graph.precision, graph.opset)
        == (source.role, source.head, "fp32", source.opset)
    ]
    if source.precision == "fp32" and twice:
        refuse(where, f"is a second fp32 source of {source.title} and its opset, beside {twice[0]!r}")


def _check_sources_make_sets(engines: Engines, manifest: Manifest) -> None:
    """Refuse a source that nothing is compiled from."""
    used = {
        each.file
        for opset in (NEWEST_OPSET, OLDEST_OPSET)
        for precision in get_args(Precision)
        for each in manifest.engine_sources(precision, opset)
    }
    for index, source in enumerate(engines.sources):
        if source.file not in used:
            refuse(f"$.engines.sources[{index}]", "is part of no set of engines", source.file)


def _check_calibration(engines: Engines) -> None:
    typed = any(each.precision != "fp32" for each in engines.sources)
    if typed != (engines.calibration is not None):
        refuse("$.engines.calibration", "is not given exactly where a source is not fp32")


def _check_prepare(engines: Engines, manifest: Manifest) -> None:
    if engines.prepare is None:
        return
    if engines.prepare != PREPARE:
        refuse("$.engines.prepare", f"is not {PREPARE!r}", engines.prepare)
    if fault := prepare_fault(manifest.preprocessing):
        refuse("$.engines.prepare", f"is of a preprocessing that no such graph can do: {fault}")


def _check_plan(where: str, plan: EnginePlan, known: dict[str, EngineSource]) -> None:
    source = known.get(plan.source)
    if source is None:
        refuse(f"{where}.source", "is no graph that engines are compiled from", plan.source)
    if plan.file != (name := f"{source.stem}.{plan.flavour}.plan"):
        refuse(f"{where}.file", f"is not {name!r}", plan.file)
    unique(f"{where}.targets", plan.targets)
    for target in plan.targets:
        if target not in RTX_TARGETS:
            refuse(f"{where}.targets", "hold one that TensorRT-RTX does not build for", target)
        if source.precision == "fp8-qdq" and capability(target) < FP8_TARGET:
            refuse(f"{where}.targets", "hold one without float8", target)
        if source.precision == "fp32" and capability(target) < RTX_FP32_TARGET:
            refuse(f"{where}.targets", "hold one without products of float32", target)


def _check_plans_make_sets(engines: Engines, manifest: Manifest) -> None:
    """Half a set is never used: each plan has the others of its set beside it, for each of its targets."""
    if len({(plan.flavour, plan.version) for plan in engines.plans}) > 1:
        versions = ", ".join(sorted({plan.version for plan in engines.plans}))
        refuse("$.engines.plans", "were built by several versions", versions)
    targets = {plan.source: set(plan.targets) for plan in engines.plans}
    if len(targets) < len(engines.plans):
        refuse("$.engines.plans", "hold two of one graph")
    usable: set[tuple[str, str]] = set()
    for precision in get_args(Precision):
        members = [each.file for each in manifest.engine_sources(precision)]
        shared = set.intersection(*(targets.get(each, set()) for each in members)) if members else set()
        usable |= {(file, target) for file in members for target in shared}
    for index, plan in enumerate(engines.plans):
        for target in plan.targets:
            if (plan.source, target) not in usable:
                what = f"is part of no whole set of plans for {target}"
                refuse(f"$.engines.plans[{index}]", what, plan.file)


def capability(target: str) -> tuple[int, int]:
    """Return a compute capability as numbers, which sort: ``"8.9"`` is (8, 9)."""
    major, _, minor = target.partition(".")
    return int(major), int(minor)
