"""The gates of docs/gates.md on the device: a set of engines against the fp32 original on the CPU."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from promptray.calibrate.engines.original import original
from promptray.calibrate.gates import GateData, ModelScores, run_gates
from promptray.calibrate.gates.report import GateReport
from promptray.calibrate.gates.table import headline, unpassed
from promptray.calibrate.image_set import ImageSet, Progress, counted
from promptray.runtime.answers import Answers
from promptray.runtime.bound_heads import BoundHead
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.manifest import Head
from promptray.runtime.engines.facts import EngineFacts, ImagesGate
from promptray.runtime.errors import BuildError
from promptray.runtime.gate_limits import LIMITS, Kind
from promptray.runtime.golden import answers_of
from promptray.runtime.graphs import Graphs, own_bank
from promptray.runtime.preprocess import normalise

_TOGETHER = 4  # images of a call whose shape must not matter
_SHAPE = f"batches of {_TOGETHER}"
_BLOCK = 64  # pictures as floats at a time


@dataclass(frozen=True)
class _Scored:
    """Answers to all images: one at a time, and several together."""

    alone: Mapping[str, Answers]
    together: Mapping[str, Answers]


def hold_images(
    bundle: Bundle,
    graphs: Graphs,
    heads: Mapping[str, BoundHead],
    facts: EngineFacts,
    images: ImageSet,
    progress: Progress,
) -> dict[str, GateReport]:
    """Hold every head of a set of engines against the original; nothing is refused here.

    Parameters
    ----------
    bundle, graphs, heads, facts
        As for `hold_golden`.
    images : ImageSet
    progress : callable

    Returns
    -------
    dict of str to GateReport
        By head.

    Raises
    ------
    BuildError
        ``gate.images`` where there is no original; ``score.not-finite``.
    """
    manifest, reference = bundle.manifest, original(bundle)
    banks = {head.name: own_bank(bundle, head) for head in manifest.heads}
    first = _scored(reference, reference.bind_all(banks), images, progress, "original")
    second = _scored(graphs, heads, images, progress, "engines")
    progress("images", "drawing intervals", 0.95)
    reports = {}
    for head in manifest.heads:
        data = _data(bundle, head, facts, images, first, second)
        report = run_gates(data, LIMITS[kind_of(facts)])
        reports[head.name] = msgspec.structs.replace(report, notes=[*report.notes, *_notes(images)])
    return reports


def kind_of(facts: EngineFacts) -> Kind:
    """Return whose bounds count for a set: those of its narrowest graph."""
    return "int8" if any(graph.precision.endswith("-qdq") for graph in facts.graphs) else "fp16"


def require_passed(reports: Mapping[str, GateReport], images: ImageSet) -> ImagesGate:
    """Return the gate as it is stored, where every head passed.

    Parameters
    ----------
    reports : mapping of str to GateReport
    images : ImageSet

    Raises
    ------
    BuildError
        ``gate.failed`` or ``gate.inconclusive``, with every gate that was not passed.
    """
    said = [headline(each) for each in reports.values() if each.verdict != "passed"]
    if said:
        refused = any(each.verdict == "refused" for each in reports.values())
        raise BuildError(
            "gate.failed" if refused else "gate.inconclusive",
            f"{'; '.join(said)}; nothing was stored",
            artefact=images.source,
            expected="every gate passed",
            found="\n".join(line for name, each in reports.items() for line in unpassed(each, name)),
            cure="build in a wider type (--precision fp16 or fp32)"
            if refused
            else "give more images, of more patients; or leave --images out, which gates on golden pictures",
        )
    digest = hashlib.sha256(b"".join(as_document(reports[name]) for name in sorted(reports)))
    return ImagesGate(images=len(images.rows), sha256=images.facts.sha256, report=digest.hexdigest())


def as_document(report: GateReport) -> bytes:
    """Return a report as the bytes of its file."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def _scored(
    graphs: Graphs, heads: Mapping[str, BoundHead], images: ImageSet, progress: Progress, what: str
) -> _Scored:
    chain = graphs.chain(heads.values())
    found: dict[int, list[dict[str, Answers]]] = {1: [], _TOGETHER: []}
    for first in range(0, len(images.rows), _BLOCK):
        progress("images", f"{what}: {first} of {len(images.rows)} images", first / len(images.rows))
        pictures = np.stack(images.pictures(images.rows[first : first + _BLOCK]))
        pixels = normalise(pictures, images.preprocessing)
        for batch, parts in found.items():
            parts.append(answers_of(chain, heads, pixels, batch=batch))
    return _Scored(*(_joined(parts) for parts in found.values()))


def _joined(parts: list[dict[str, Answers]]) -> dict[str, Answers]:
    return {name: Answers.joined([each[name] for each in parts]) for name in parts[0]}


def _data(
    bundle: Bundle, head: Head, facts: EngineFacts, images: ImageSet, first: _Scored, second: _Scored
) -> GateData:
    keys = [each.key for each in bundle.manifest.findings_of(head.name)]
    alone, ours = first.alone[head.name], second.alone[head.name]
    return GateData(
        findings=tuple(keys),
        original=ModelScores("the fp32 original", alone.logits, alone.maps, bundle.hash),
        candidate=ModelScores(
            f"{facts.backend} {facts.version} {facts.precision} on {facts.device.name}",
            ours.logits,
            ours.maps,
        ),
        again=ModelScores(f"the same in {_SHAPE}", first.together[head.name].logits),
        other_shapes={_SHAPE: second.together[head.name].logits},
        labels=images.labels_for(keys),
        patients=images.patients,
        patients_known=images.patients_known,
        image_hashes=tuple(images.sha256s),
        image_numbers=tuple(images.numbers),
    )


def _notes(images: ImageSet) -> list[str]:
    notes = [f"The images: {images.source}."]
    if images.refused:
        notes.append(f"The door refused images, which are not gated on: {counted(images.refused)}.")
    return notes
