"""The report of a build's gates (``parity.json``): what was compared, within which bounds, on what.

Section 7 of ``docs/bundle-format.md`` is the format. People read it; changed graphs are used only where it
says that they passed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from promptray.runtime.answers import spreads_of
from promptray.runtime.backends import HOST
from promptray.runtime.bundle.fields import Count, Text
from promptray.runtime.bundle.gate_summary import GateSummary, check_gates, misfit
from promptray.runtime.bundle.manifest import Head, Manifest
from promptray.runtime.bundle.parse import strict_json
from promptray.runtime.bundle.reader import Bundle
from promptray.runtime.bundle.validate import LARGEST_TOLERANCE
from promptray.runtime.engines.facts import HeadGate
from promptray.runtime.engines.sources import source_sets
from promptray.runtime.errors import BundleError
from promptray.runtime.gated_answers import LARGEST_SHARE, ROUNDING
from promptray.runtime.golden import read_golden

Difference = Annotated[float, Meta(ge=0)]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the report's structures: immutable, keyword-only, closed."""


class Comparison(_Struct, frozen=True):
    """The exported graphs against the original model, over all golden images and findings."""

    against: Text
    score_error: Difference
    """Largest absolute difference of a score."""
    score_error_mean: Difference
    map_error: Difference | None
    """Largest absolute difference of a map's cell; None for a head without maps."""


class Variation(_Struct, frozen=True):
    """One thing varied that must not matter, and the largest change that it made."""

    varied: Text
    score_error: Difference
    map_error: Difference | None


class HeadParity(_Struct, frozen=True):
    """What was compared of one head, and within which bounds."""

    head: Text
    findings: Count
    decisions: Count
    """Scores compared: images times findings."""
    score_tolerance: Difference
    tolerance_share: Difference
    """`score_tolerance` over the standard deviation of the original's scores over images."""
    map_tolerance: Difference | None
    against_original: Comparison
    noise: list[Variation]


class CheckedSources(_Struct, frozen=True):
    """A set of graphs that engines are compiled from, held against the golden answers as they are written.

    That says that the graphs compute what they should. Whether an engine does is for the device's gate.
    """

    precision: Text
    opset: Count
    """Newest of the set's graphs: 20, or 17 for TensorRT 8.6."""
    backend: Text
    heads: list[HeadGate]


class BackendParity(_Struct, frozen=True):
    """The same comparisons on a further backend that the graphs are for."""

    backend: Text
    heads: list[HeadParity]


class ParityReport(_Struct, frozen=True):
    """All of ``parity.json``."""

    format: Literal["promptray-parity"]
    format_version: Literal[3]
    graphs: Text
    """Precision of the graphs that `heads` is about: ``fp32``, as they were before any change."""
    backend: Text
    machine: Text
    images: Count
    heads: list[HeadParity]
    backends: list[BackendParity] = []
    """Of every other backend that graphs are for, in the order that the recipe names them."""
    notes: list[Text] = []
    """What the build had to assume of the model."""
    gates: list[GateSummary] = []
    """Of changed graphs, in the order of the manifest's ``gated``."""
    sources: list[CheckedSources] = []
    """Of every set with a graph of the manifest's ``engines``."""


def read_parity(bundle: Bundle) -> ParityReport:
    """Read the report of a bundle's gates.

    Raises
    ------
    BundleError
        ``bundle.hash`` when the file was changed; ``bundle.format`` when it is no such report, or that of
        another bundle, or of gates that were not passed.
    """
    name = bundle.manifest.parity
    try:
        report = msgspec.convert(strict_json(bundle.read(name)), ParityReport)
    except ValueError as error:  # msgspec.ValidationError is one
        raise BundleError(
            "bundle.format",
            f"the report of the gates breaks its schema: {error}",
            artefact=name,
            expected="the fields of ParityReport (docs/bundle-format.md, section 7)",
            cure="build the bundle again with `promptray build`",
        ) from error
    _require_own(report, bundle.manifest)
    check_gates(report.gates, bundle)
    _check_sources(report, bundle)
    return report


def _check_sources(report: ParityReport, bundle: Bundle) -> None:
    """Every set with a graph that does not run was held, for every head and within bounds that can fail."""
    manifest = bundle.manifest
    running = {graph.file for graph in manifest.graphs}
    must = [
        (each.precision, each.opset)
        for each in source_sets(manifest)
        if not running.issuperset(source.file for source in each.sources)
    ]
    said = [(each.precision, each.opset) for each in report.sources]
    if said != must:
        raise misfit(manifest.parity, "sources of engines", str(must), str(said))
    widest = _widest(bundle) if report.sources else {}
    for each in report.sources:
        what = f"{each.precision} sources of engines, opset {each.opset}"
        heads = [(head.name, head.map is not None) for head in manifest.heads]
        told = [(head.head, head.map_tolerance is not None) for head in each.heads]
        if told != heads:
            raise misfit(manifest.parity, f"{what}: heads, with or without maps", str(heads), str(told))
        for own, head in zip(manifest.heads, each.heads, strict=True):
            exact = each.precision == "fp32"
            scores = own.score_tolerance if exact else widest[own.name]
            maps = own.map.tolerance if exact and own.map else LARGEST_TOLERANCE
            for error, bound, most in (
                (head.score_error, head.score_tolerance, scores),
                (head.map_error or 0.0, head.map_tolerance or 0.0, maps),
            ):
                if not 0 <= error <= bound:
                    raise misfit(manifest.parity, what, f"within {bound:g}", f"off by {error:g}")
                if bound > most:
                    raise misfit(manifest.parity, what, f"a bound of at most {most:g}", f"{bound:g}")


def _widest(bundle: Bundle) -> dict[str, float]:
    """Return, by head, the widest bound that tells every finding's golden scores apart.

    What a site added is left out: the report's rows are of the findings before a repacking.
    """
    manifest, golden = bundle.manifest, read_golden(bundle)
    added = {key for step in manifest.provenance.repacked for key in step.added}

    def proved(head: Head) -> list[bool]:
        return [head.set == "fixed" or each.key not in added for each in manifest.findings_of(head.name)]

    return {
        head.name: LARGEST_SHARE
        * float(spreads_of(golden.answers[head.name].logits[:, proved(head)]).min(initial=math.inf))
        * (1 + ROUNDING)
        for head in manifest.heads
    }


def _require_own(report: ParityReport, manifest: Manifest) -> None:
    """Refuse a report whose heads, counts or bounds are not the manifest's, or whose bounds were not kept."""
    for backend, heads in [(report.backend, report.heads), *((o.backend, o.heads) for o in report.backends)]:
        for what, expected, found in _stated(report, heads, manifest):
            if found != expected:
                raise misfit(manifest.parity, f"{what}, on {backend}", str(expected), str(found))
        _require_within(heads, manifest)


def _require_within(heads: list[HeadParity], manifest: Manifest) -> None:
    for each in heads:
        original = each.against_original
        compared: list[Comparison | Variation] = [original, *each.noise]
        scores = max(
            original.score_error, original.score_error_mean, *(item.score_error for item in compared)
        )
        maps = max(item.map_error or 0.0 for item in compared)
        for what, bound, error in (
            (f"scores of {each.head}", each.score_tolerance, scores),
            (f"maps of {each.head}", each.map_tolerance or 0.0, maps),
        ):
            if error > bound:
                raise misfit(manifest.parity, what, f"within {bound:g}", f"off by {error:g}")


def _stated(
    report: ParityReport, heads: list[HeadParity], manifest: Manifest
) -> Iterator[tuple[str, object, object]]:
    """Yield what both say: its name, then the manifest's word, then the report's."""
    yield "images", len(manifest.golden.images), report.images
    others = [each.backend.partition(" ")[0] for each in report.backends]
    named = {name.partition("@")[0] for graph in manifest.graphs for name in graph.consumers}
    yield "backends", sorted(named - {HOST}), sorted(others)
    yield "heads", [head.name for head in manifest.heads], [each.head for each in heads]
    for head, each in zip(manifest.heads, heads, strict=True):
        findings = len(manifest.findings_of(head.name))
        yield f"findings of {head.name}", findings, each.findings
        yield f"decisions of {head.name}", report.images * findings, each.decisions
        yield f"score tolerance of {head.name}", head.score_tolerance, each.score_tolerance
        yield f"map tolerance of {head.name}", head.map.tolerance if head.map else None, each.map_tolerance
        compared: list[Comparison | Variation] = [each.against_original, *each.noise]
        for item in compared:
            yield f"maps of {head.name}", head.map is not None, item.map_error is not None
