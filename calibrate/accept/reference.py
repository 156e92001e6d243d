"""The fp32 original of a bundle: that it is the one, and how near to it the bundle must stay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace

import msgspec

from promptray.calibrate.gates.report import GateReport
from promptray.runtime.backend_facts import gated_consumer, reduces_decode
from promptray.runtime.backends import HOST, BackendFacts
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.manifest import Head, Manifest
from promptray.runtime.bundle.parity import read_parity
from promptray.runtime.errors import PromptRayError
from promptray.runtime.gate_limits import LIMITS, Kind, Limits
from promptray.runtime.machine_class import consumers_here

#: Of a bank's identity: the hash of an exported file, which another version of the exporter writes otherwise.
_EXPORTED = "text_graph"


def require_original(bundle: Bundle, reference: Bundle) -> None:
    """Refuse a reference that is not the fp32 original of a bundle.

    It is where both were read from the same files (checkpoint, configuration, vocabulary; by their hashes)
    and prepare images alike, where every head of the bundle has the same weights, layout and rules in both,
    and where the reference runs nothing but fp32 graphs of the checkpoint itself. A bundle is its own
    original where it holds such graphs: engines are compiled from them.

    Raises
    ------
    PromptRayError
        ``accept.reference``, with what differs.
    """
    ours, theirs = bundle.manifest, reference.manifest
    for what, expected, found in _stated(ours, theirs):
        if expected != found:
            raise _foreign(reference, f"another {what}", f"{what} {expected}", str(found))
    changed = _changed(theirs, itself=bundle.hash == reference.hash)
    if changed:
        raise _foreign(reference, "no fp32 original", "fp32 graphs of the checkpoint itself", changed)


def require_another(bundle: Bundle, reference: Bundle, backend: BackendFacts) -> None:
    """Refuse to hold a model against itself, the same graphs on the same backend, which would prove nothing.

    Where JPEG 2000 is decoded at a lower resolution it is not the same: the reference's is decoded whole.

    Raises
    ------
    PromptRayError
        ``accept.reference``.
    """
    if bundle.hash == reference.hash and backend.name == HOST and not reduces_decode(backend):
        what = "the bundle itself, on the same backend"
        raise _foreign(reference, what, "another bundle, or another backend of this one", "the same graphs")


def _stated(ours: Manifest, theirs: Manifest) -> Iterator[tuple[str, object, object]]:
    """Yield what both must say alike: its name, then the bundle's word, then the reference's."""
    yield "family", ours.family, theirs.family
    yield "checkpoint", ours.provenance.checkpoint.sha256, theirs.provenance.checkpoint.sha256
    yield "set of files beside the checkpoint", _sources(ours), _sources(theirs)
    yield "preprocessing", ours.preprocessing, theirs.preprocessing
    for head in ours.heads:
        other = theirs.head(head.name)
        yield "set of heads", head.name, None if other is None else other.name
        if other is None:
            return
        shared = head.bank.identity.keys() & other.bank.identity.keys() - {_EXPORTED}
        for key in sorted(shared):
            yield f"{key} of {head.name}", head.bank.identity[key], other.bank.identity[key]
        yield f"grid of the maps of {head.name}", _grid(head), _grid(other)
        if head.set == "fixed":  # its findings look at each other
            yield f"set of findings of {head.name}", _wordings(ours, head), _wordings(theirs, other)


def _sources(manifest: Manifest) -> list[str]:
    return sorted(source.sha256 for source in manifest.provenance.sources)


def _wordings(manifest: Manifest, head: Head) -> list[tuple[str, list[str]]]:
    return [(finding.key, finding.prompts) for finding in manifest.findings_of(head.name)]


def _grid(head: Head) -> list[int] | None:
    return None if head.map is None else list(head.map.grid)


def _changed(reference: Manifest, *, itself: bool) -> str | None:
    """Say what of a reference is not the original's on the CPU; None where everything is."""
    consumers = consumers_here(HOST)
    used = [reference.graph_for("image", consumers)]
    used += [reference.graph_for("head", consumers, head.name) for head in reference.heads]
    precise = all(graph is not None and graph.precision == "fp32" for graph in used)
    if not precise or any(head.bank.stored != "float32" for head in reference.heads):
        return "graphs or banks of another precision"
    if not itself and reference.provenance.distilled is not None:
        return f"a student, {reference.provenance.distilled.student}"
    return None


def kept_limits(bundle: Bundle, reference: Bundle, backend: BackendFacts, head: str) -> tuple[Kind, Limits]:
    """Return the limits that one head must keep to its original, and whose they are.

    Of changed graphs on the CPU they are the bounds that the bundle's own gates held. Of engines they are
    those of their narrowest graph; of a student that is held against its teacher those of students. Else,
    where nothing was changed, the strictest.
    """
    if backend.name == HOST:
        return _of_gates(bundle, backend, head)
    if bundle.manifest.provenance.distilled is not None and bundle.hash != reference.hash:
        return "student", LIMITS["student"]
    kind: Kind = "int8" if "-qdq" in backend.precision else "fp16"
    return kind, LIMITS[kind]


def _of_gates(bundle: Bundle, backend: BackendFacts, head: str) -> tuple[Kind, Limits]:
    for summary in read_parity(bundle).gates:
        if (summary.consumer, summary.head, summary.of) == (gated_consumer(backend), head, "scores"):
            report = msgspec.json.decode(bundle.read(summary.report), type=GateReport)
            known = asdict(LIMITS[summary.kind])
            kept = {gate.name: gate.bound for gate in report.gates if gate.name in known}
            return summary.kind, replace(LIMITS[summary.kind], **kept)
    return "fp16", LIMITS["fp16"]


def _foreign(reference: Bundle, what: str, expected: str, found: str) -> PromptRayError:
    return PromptRayError(
        "accept.reference",
        f"the reference is {what}",
        artefact=f"{reference.manifest.name} {reference.short_hash}",
        expected=expected,
        found=found,
        cure="give the fp32 bundle that `promptray build` makes of the same checkpoint without `quantise` "
        "and `distil`, for engines the bundle itself; or leave --reference out",
    )
