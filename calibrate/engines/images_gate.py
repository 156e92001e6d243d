"""The gates of docs/gates.md on the device: a set of engines against the fp32 original on the CPU."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from promptray.calibrate.engines.original import original
from promptray.calibrate.gates import run_gates
from promptray.calibrate.gates.on_images import ImagesHeld, score_pictures
from promptray.calibrate.gates.report import GateReport
from promptray.calibrate.image_set import ImageSet, Progress
from promptray.runtime.bound_heads import BoundHead
from promptray.runtime.bundle import Bundle
from promptray.runtime.engines.facts import EngineFacts, ImagesGate
from promptray.runtime.gate_limits import LIMITS, Kind
from promptray.runtime.graphs import Graphs, own_bank


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
    manifest, reference, held = bundle.manifest, original(bundle), ImagesHeld.all(images)
    banks = {head.name: own_bank(bundle, head) for head in manifest.heads}
    bound = reference.bind_all(banks)
    first = score_pictures(reference, bound, held.pictures, held, progress, "original")
    second = score_pictures(graphs, heads, held.pictures, held, progress, "engines")
    progress("images", "drawing intervals", 0.95)
    reports = {}
    name = f"{facts.backend} {facts.version} {facts.precision} on {facts.device.name}"
    for head in manifest.heads:
        data = held.data(manifest, head, ("the fp32 original", bundle.hash, first), (name, None, second))
        report = run_gates(data, LIMITS[kind_of(facts)])
        reports[head.name] = msgspec.structs.replace(report, notes=[*report.notes, *held.notes])
    return reports


def kind_of(facts: EngineFacts) -> Kind:
    """Return whose bounds count for a set: those of its narrowest graph."""
    return "int8" if any(graph.precision.endswith("-qdq") for graph in facts.graphs) else "fp16"


def require_passed(reports: Mapping[str, GateReport], images: ImageSet) -> ImagesGate:
    """Return the gate as it is stored, where every head passed.

    Raises
    ------
    BuildError
        ``gate.failed`` or ``gate.inconclusive``, with every gate that was not passed.
    """
    return ImagesHeld.all(images).passed(
        reports,
        refused="build in a wider type (--precision fp16 or fp32)",
        inconclusive="give more images, of more patients; or leave --images out, which gates on golden "
        "pictures",
    )
