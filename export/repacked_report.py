"""``parity.json`` of a repacked bundle: what was held, of which findings, against what."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec

from promptray.export.parity import check_backends
from promptray.runtime.bundle.manifest import Manifest
from promptray.runtime.bundle.parity import ParityReport
from promptray.runtime.graphs import BundleContent


def repacked_report(content: BundleContent, before: ParityReport, progress: Callable[[float], None]) -> bytes:
    """Return the report of a repacked bundle.

    The fp32 graphs are held against the golden answers again, whose added columns are their own.

    Parameters
    ----------
    content : BundleContent
        All of the new bundle but this report.
    before : ParityReport
        Of the bundle it comes from.
    progress : callable
        Called with the fraction done.

    Raises
    ------
    BuildError
        ``gate.failed``.
    """
    manifest = content.manifest
    ran = [before.backend, *(each.backend for each in before.backends)]
    backends = [each.partition(" ")[0] for each in ran]
    report = check_backends(content, backends, progress)
    own = _without_original(manifest)
    heads = [each for part in (report, *report["backends"]) for each in part["heads"]]
    for each in heads if own else ():
        head = manifest.free_head
        if head is not None and each["head"] == head.name:
            against = each["against_original"]
            against["against"] += f"; {', '.join(own)}: these graphs, when they were repacked"
    step = manifest.provenance.repacked[-1]
    named = {"added": step.added, "left out": step.removed}
    changes = "; ".join(f"{what} {', '.join(keys)}" for what, keys in named.items() if keys)
    note = f"Repacked from bundle {step.bundle[:12]} and revision {step.site_revision} of a site: {changes}."
    if step.added:
        note += " No original scored what was added: its golden answers are of these graphs."
    # What engines are compiled from is the same graphs; they were held with the first bundle's findings.
    kept = {"notes": [*before.notes, note], "sources": msgspec.to_builtins(before.sources)}
    return json.dumps({**report, **kept}, indent=2).encode() + b"\n"


def _without_original(manifest: Manifest) -> list[str]:
    """Return the findings that were added by this repacking or an earlier one."""
    added = {key for step in manifest.provenance.repacked for key in step.added}
    head = manifest.free_head
    return [] if head is None else [each.key for each in manifest.findings_of(head.name) if each.key in added]
