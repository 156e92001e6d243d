"""What ``parity.json`` says of the gates of changed graphs, held against their reports and the bundle.

Section 7.2 of ``docs/bundle-format.md`` is the format.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from promptray.runtime.bundle.candidate import Of, candidate_sha256
from promptray.runtime.bundle.fields import Consumer, HeadName, Sha256, Text
from promptray.runtime.bundle.gated import Gated
from promptray.runtime.bundle.manifest import Graph, Manifest
from promptray.runtime.bundle.parse import strict_json
from promptray.runtime.bundle.reader import Bundle
from promptray.runtime.errors import BundleError
from promptray.runtime.gate_limits import KINDS, Kind
from promptray.runtime.gate_report import StatedReport, gate_faults

Positive = Annotated[int, Meta(ge=1)]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the summary's structures: immutable, keyword-only, closed."""


class ImagesOfGate(_Struct, frozen=True, kw_only=True):
    """Images that something was measured on; no name, no patient data."""

    images: Positive
    sha256: Sha256
    """Of the pictures that the network sees."""
    source: Text
    refused: dict[str, Positive] = {}
    """Images that the door refused, by the code of the error: they are not among `images`."""


class ChangedGraph(_Struct, frozen=True, kw_only=True):
    """A graph that a gate was held for."""

    graph: Text
    """Its role, of a head with its name."""
    precision: Text
    bytes_before: Positive
    """Of the original's fp32 graph, in the place of which it is."""
    bytes_after: Positive


class ChangedBank(_Struct, frozen=True, kw_only=True):
    """A prompt bank that a gate was held with, stored in less than the original's."""

    head: HeadName
    stored: Text
    bytes_before: Positive
    bytes_after: Positive


class GateSummary(_Struct, frozen=True, kw_only=True):
    """What changed graphs were held against the original for; the whole is in `report`."""

    consumer: Consumer
    report: Text
    """Name of the file."""
    head: HeadName
    of: Of
    """``added prompts``: the findings encoded again by the changed text graph."""
    verdict: Literal["passed"]
    kind: Kind
    """Whose limits were held."""
    patients: Positive
    labelled: bool
    measured_on: ImagesOfGate
    graphs: list[ChangedGraph]
    """Every changed graph of the consumer."""
    tools: dict[str, str]
    banks: list[ChangedBank] = []
    """Every bank that is stored in less."""


def check_gates(summaries: list[GateSummary], bundle: Bundle) -> None:
    """Refuse summaries that are not those of the manifest's gated graphs, or not what their reports say.

    Raises
    ------
    BundleError
        ``bundle.format``; ``bundle.hash`` when a report was changed.
    """
    manifest, name = bundle.manifest, bundle.manifest.parity
    expected = [each for gated in manifest.gated for each in _gates_of(gated)]
    found = [(each.consumer, each.report, each.head, each.of) for each in summaries]
    if found != expected:
        raise misfit(name, "gates", str(expected), str(found))
    for each in summaries:
        _check_kind(each, manifest)
        _check_graphs(each, manifest)
        _check_banks(each, manifest)
        _check_report(each, _read(each, bundle), manifest)


def _gates_of(gated: Gated) -> Iterator[tuple[str, str, str, str]]:
    for each in gated.heads:
        yield gated.consumer, each.report, each.head, "scores"
    if gated.text is not None:
        yield gated.consumer, gated.text.report, gated.text.head, "added prompts"


def _check_kind(each: GateSummary, manifest: Manifest) -> None:
    """Limits of a student are for students, and those of INT8 for more than a change to FP16."""
    precisions = {graph.precision for graph in changed_graphs(manifest, each.consumer)}
    loosest: Kind = "fp16" if precisions <= {"fp16"} else "int8"
    of_text = each.of == "added prompts" and manifest.provenance.distilled_text is not None
    if manifest.provenance.distilled is not None or of_text:
        loosest = "student"
    if KINDS.index(each.kind) > KINDS.index(loosest):
        raise misfit(manifest.parity, "kind of a gate", f"{loosest}, or a stricter one", each.kind)


def changed_graphs(manifest: Manifest, consumer: str) -> list[Graph]:
    """Return the graphs that are certainly not the original's: of a class of machines, or a student."""
    made = manifest.provenance
    students = {"image": made.distilled is not None, "text": made.distilled_text is not None}
    return [
        graph
        for graph in manifest.graphs
        if consumer in graph.consumers and ("@" in consumer or students.get(graph.role, False))
    ]


def _check_graphs(each: GateSummary, manifest: Manifest) -> None:
    """Every changed graph was there when the gate was held, as it is in the bundle."""
    stated = {(graph.graph, graph.precision, graph.bytes_after) for graph in each.graphs}
    own = [graph for graph in manifest.graphs if each.consumer in graph.consumers]
    there = {(graph.title, graph.precision, manifest.files[graph.file].size) for graph in own}
    must = {graph.title for graph in changed_graphs(manifest, each.consumer)}
    if not stated <= there or not must <= {title for title, *_ in stated}:
        raise misfit(manifest.parity, "graphs of a gate", str(sorted(there)), str(sorted(stated)))


def _check_banks(each: GateSummary, manifest: Manifest) -> None:
    """Every bank that is stored in less was there, and something was changed at all."""
    stated = [(bank.head, bank.stored, bank.bytes_after) for bank in each.banks]
    banks = [(head.name, head.bank) for head in manifest.heads if head.bank.stored != "float32"]
    there = [(name, bank.stored, manifest.files[bank.file].size) for name, bank in banks]
    if stated != there:
        raise misfit(manifest.parity, "banks of a gate", str(there), str(stated))
    if not each.graphs and not each.banks:
        raise misfit(manifest.parity, "what a gate was held for", "a changed graph or bank", "neither")


def _read(each: GateSummary, bundle: Bundle) -> StatedReport:
    try:
        return msgspec.convert(strict_json(bundle.read(each.report)), StatedReport)
    except ValueError as error:
        raise misfit(each.report, "a report of a gate", "its schema", str(error)) from error


def _check_report(each: GateSummary, report: StatedReport, manifest: Manifest) -> None:
    said = (each.verdict, each.measured_on.images, each.patients, each.labelled)
    found = (report.verdict, report.images, report.patients, report.labelled)
    if found != said:
        raise misfit(each.report, "a gate and its report", str(said), str(found))
    judged = candidate_sha256(manifest, each.consumer, each.of, lambda name: manifest.files[name].sha256)
    if report.candidate.sha256 != judged:
        raise misfit(each.report, "the model that a gate judged", judged, report.candidate.sha256)
    head = manifest.head(each.head)
    for fault in gate_faults(report, each.kind, maps=head is not None and head.map is not None):
        raise misfit(each.report, fault.what, fault.expected, fault.found)


def misfit(artefact: str, what: str, expected: str, found: str) -> BundleError:
    """Return the refusal of a report that is not the bundle's."""
    return BundleError(
        "bundle.format",
        f"the report of the gates does not fit the bundle: {what}",
        artefact=artefact,
        expected=expected,
        found=found,
        cure="build the bundle again with `promptray build`",
    )
