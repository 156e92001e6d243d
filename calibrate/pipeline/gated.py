"""What a bundle says of its gated graphs: reports, summaries, and the answers of a right machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from promptray.calibrate.gates import Kind
from promptray.calibrate.image_set import ImageSet
from promptray.calibrate.pipeline.gate import Held
from promptray.calibrate.pipeline.quantised import Changed
from promptray.calibrate.pipeline.scores import Model
from promptray.calibrate.pipeline.self_test import SelfTest, text_tolerance
from promptray.export.draft import Draft
from promptray.export.stage_cache import StageCache
from promptray.runtime.bank_file import pack, unpack
from promptray.runtime.bundle.gate_summary import ChangedBank, ChangedGraph, GateSummary
from promptray.runtime.bundle.gated import Gated, GatedHead, GatedText
from promptray.runtime.bundle.manifest import Head
from promptray.runtime.bundle.validate_gated import gates_folder
from promptray.runtime.gated_answers import GatedAnswers, pack_answers
from promptray.runtime.golden import GoldenSet
from promptray.runtime.prompts import BankEntry, PromptBank
from promptray.runtime.text_check import difference


class _Tolerances(msgspec.Struct, frozen=True):
    """By head, of scores and of maps; of an encoded finding."""

    heads: dict[str, tuple[float, float | None]]
    text: float | None


def summary(held: Held, kind: Kind, images: ImageSet, original: Draft, changed: Changed) -> GateSummary:
    """Return what ``parity.json`` says of a gate that was passed."""
    manifest = changed.draft.manifest
    tools = {name: version for report in changed.reports.values() for name, version in report.tools.items()}
    if manifest.provenance.distilled is not None:
        tools |= {name: manifest.provenance.libraries[name] for name in ("timm", "torch", "onnxruntime")}
    if manifest.provenance.distilled_text is not None:
        libraries = ("transformers", "torch", "onnxruntime")
        tools |= {name: manifest.provenance.libraries[name] for name in libraries}
    return GateSummary(
        consumer=held.consumer,
        report=f"{gates_folder(held.consumer)}/{held.name}.json",
        head=held.head,
        of=held.of,
        verdict="passed",
        kind=kind,
        patients=held.report.patients,
        labelled=held.report.labelled,
        measured_on=images.facts,
        graphs=_changed_graphs(original, changed.draft, held.consumer),
        tools=tools,
        banks=_changed_banks(original, changed.draft),
    )


def _changed_graphs(original: Draft, made: Draft, consumer: str) -> list[ChangedGraph]:
    """Return a consumer's graphs that are not the original's, with both sizes."""
    before = {graph.title: original.read(graph.file) for graph in original.manifest.graphs}
    own = [graph for graph in made.manifest.graphs if consumer in graph.consumers]
    after = {graph.title: (graph.precision, made.read(graph.file)) for graph in own}
    return [
        ChangedGraph(
            graph=title,
            precision=precision,
            bytes_before=len(before[title]),
            bytes_after=len(content),
        )
        for title, (precision, content) in after.items()
        if content != before[title]
    ]


def _changed_banks(original: Draft, made: Draft) -> list[ChangedBank]:
    return [
        ChangedBank(
            head=head.name,
            stored=head.bank.stored,
            bytes_before=len(original.read(head.bank.file)),
            bytes_after=len(made.read(head.bank.file)),
        )
        for head in made.manifest.heads
        if head.bank.stored != "float32"
    ]


def added_prompts(draft: Draft, stages: StageCache) -> Model:
    """Return a draft with all findings of its text head encoded by its own, changed text graph."""
    head = _text_head(draft)
    key = stages.key("added", {"text": _text_sha256(draft), "bank": head.bank.id, **Model(draft).key})

    def encode(out: Path) -> None:
        entries = _encoded(draft, threads=1)
        (out / "bank.safetensors").write_bytes(pack(PromptBank(head.bank, entries)))

    folder, _ = stages.run("added", key, encode)
    content = (folder / "bank.safetensors").read_bytes()
    return Model(draft, {head.name: unpack(content, head.bank, artefact="bank.safetensors")})


def with_gates(
    made: Draft,
    candidate: Model,
    text: Model | None,
    golden: GoldenSet,
    heads: Sequence[Head],
    held: Sequence[Held],
    stages: StageCache,
) -> Draft:
    """Return the candidate's draft with its gates' reports, and the answers that a right machine gives.

    Parameters
    ----------
    made : Draft
        The candidate's, with what other backends gave.
    candidate : Model
    text : Model, optional
        The candidate with prompts that its changed text graph encoded.
    golden : GoldenSet
        Pictures with the answers of the fp32 graphs' torch model: the original, or the student.
    heads : sequence of Head
        Those whose scores come from changed graphs.
    held : sequence of Held
        All passed.
    stages : StageCache

    Raises
    ------
    BuildError
        ``gate.failed`` where the candidate's answers change too much with the shape of the call.
    """
    draft, consumer = candidate.draft, candidate.consumer
    folder, tested = gates_folder(consumer), _tested(candidate, text, golden, heads, stages)
    answers = f"{folder}/answers.safetensors"
    files: dict[str, bytes | Path] = {answers: tested / "answers.safetensors"}
    for each in held:
        files |= {f"{folder}/{each.name}.json": each.sealed, f"{folder}/{each.name}.html": each.sealed_page}
    found = msgspec.json.decode((tested / "tolerances.json").read_bytes(), type=_Tolerances)
    of_heads = [
        GatedHead(
            head=name,
            score_tolerance=score,
            map_tolerance=of_map,
            report=f"{folder}/head-{name}.json",
            page=f"{folder}/head-{name}.html",
        )
        for name, (score, of_map) in found.heads.items()
    ]
    of_text = None
    if found.text is not None:
        of_text = GatedText(
            head=_text_head(draft).name,
            tolerance=found.text,
            report=f"{folder}/text.json",
            page=f"{folder}/text.html",
        )
    gated = Gated(consumer=consumer, answers=answers, heads=of_heads, text=of_text)
    manifest = msgspec.structs.replace(made.manifest, gated=[*made.manifest.gated, gated])
    return replace(made, manifest=manifest, files={**made.files, **files})


def _tested(
    candidate: Model, text: Model | None, golden: GoldenSet, heads: Sequence[Head], stages: StageCache
) -> Path:
    """Return the stage of the self-test: ``answers.safetensors``, ``tolerances.json``."""
    facts = {
        "candidate": candidate.key,
        "pictures": hashlib.sha256(np.ascontiguousarray(golden.pictures).tobytes()).hexdigest(),
        "original": {
            name: hashlib.sha256(each.logits.tobytes()).hexdigest() for name, each in golden.answers.items()
        },
        "text": _text_sha256(candidate.draft) if text else None,
    }
    key = stages.key("self-test", facts)
    folder, _ = stages.run("self-test", key, lambda out: _self_test(candidate, text, golden, heads, out))
    return folder


def _self_test(
    candidate: Model, text: Model | None, golden: GoldenSet, heads: Sequence[Head], out: Path
) -> None:
    test = SelfTest(candidate, golden) if heads else None
    tolerances = {head.name: test.tolerances(head) for head in heads} if test else {}
    answers = test.answers([head.name for head in heads]) if test else {}
    entry, of_text = None, None
    if text is not None:
        entry = text.banks[_text_head(candidate.draft).name].entries[0]
        (again,) = _encoded(candidate.draft, threads=2, most=1)
        of_text = text_tolerance(difference(again.tensors, entry.tensors))
    stored = GatedAnswers(answers, entry.tensors if entry else {})
    (out / "answers.safetensors").write_bytes(pack_answers(stored))
    (out / "tolerances.json").write_bytes(msgspec.json.encode(_Tolerances(tolerances, of_text)))


def _encoded(draft: Draft, *, threads: int, most: int | None = None) -> list[BankEntry]:
    """Encode the findings of the text head, or the first few, with the draft's own text graph."""
    graphs, _ = Model(draft).compiled(threads)
    return [
        graphs.encode(each.key, each.prompts, each.negative_prompts, allow_empty=True)
        for each in draft.manifest.findings_of(_text_head(draft).name)[:most]
    ]


def _text_head(draft: Draft) -> Head:
    head = draft.manifest.text_head
    assert head is not None  # noqa: S101 - a text graph was changed, so there is one
    return head


def _text_sha256(draft: Draft) -> str:
    graph = draft.manifest.graph("text")
    assert graph is not None  # noqa: S101 - see above
    return hashlib.sha256(draft.read(graph.file)).hexdigest()
