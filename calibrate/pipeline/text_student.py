"""The stage that puts a smaller text side into a draft, and what its gate is held on.

The findings of the recipe keep the bank that the teacher's fp32 text side made; the student encodes what is
added later. So its gate scores prompts as they will be added: the recipe's findings, which it did not learn
from, and wordings of topics that it never met.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from promptray.calibrate.distil.text_wordings import Wordings, gather, token_hash
from promptray.calibrate.image_set import Progress
from promptray.calibrate.pipeline.banks import with_added_by
from promptray.calibrate.pipeline.recipe import TextDistilRecipe
from promptray.calibrate.pipeline.scores import Model
from promptray.calibrate.same_picture import picture_sha256
from promptray.export.draft import GATED_ON, Draft
from promptray.export.model_facts import OPSET
from promptray.export.sources import Sources
from promptray.export.stage_cache import StageCache
from promptray.runtime.backends import BoundGraph, load_backend
from promptray.runtime.bank_file import pack, unpack
from promptray.runtime.bundle.fields import Sha256, Text
from promptray.runtime.bundle.manifest import DistilledText, Finding, Graph, Head
from promptray.runtime.errors import BuildError
from promptray.runtime.golden import read_golden
from promptray.runtime.graphs import encode_finding
from promptray.runtime.machine_class import consumers_here
from promptray.runtime.preprocess import normalise
from promptray.runtime.prompts import BankEntry, PromptBank
from promptray.runtime.text import EncodedFinding, EncodedPrompt, TextEncoder
from promptray.runtime.text_check import difference

_ABOUT, _GRAPH = "about.json", "text.onnx"
#: How far the exported graph may be from its torch module, as a share of a tensor's largest number.
_EXPORT_TOLERANCE = 1e-4


class _About(msgspec.Struct, frozen=True):
    """What later stages need of a text student, without torch."""

    weights: Sha256
    teacher: Sha256
    of: int
    trained: int
    wordings: Sha256
    warnings: list[Text]


@dataclass(frozen=True)
class TextTaught:
    """A draft with a smaller text side.

    Attributes
    ----------
    draft : Draft
    held_out : tuple of EncodedPrompt
        Wordings of topics that it never met.
    warnings : list of str
    """

    draft: Draft
    held_out: tuple[EncodedPrompt, ...]
    warnings: list[str]


def text_taught(
    settings: TextDistilRecipe,
    path: Path,
    sources: Sources,
    teacher: Draft,
    made: Draft,
    stages: StageCache,
    progress: Progress,
    *,
    gated: Collection[str],
    other_graphs_quantised: bool,
) -> TextTaught:
    """Make a smaller text side, or take it from the cache; a killed run goes on where it stopped.

    Parameters
    ----------
    settings : TextDistilRecipe
    path : Path
        The recipe's file.
    sources : Sources
        Of the teacher.
    teacher : Draft
        fp32; its golden pictures are those whose logits are learned.
    made : Draft
        What gets the text side: the teacher, or one with a student for its image tower.
    stages : StageCache
    progress : callable
    gated : collection of str
        Hashes of the pictures of the gate: none of them may be a golden one.
    other_graphs_quantised : bool
        Then this graph is for the same class of machines as those.

    Raises
    ------
    BuildError
        ``distil.*``; ``gate.images``; ``export.failed`` where the graph does not compute as its module does.
    """
    manifest = teacher.manifest
    head, rule = manifest.text_head, manifest.text
    if head is None or rule is None or head.set == "fixed":
        raise BuildError(
            "distil.student",
            "no prompt can be added to this model, so a smaller text side would encode nothing",
            artefact=f"{path.name}, key distil_text",
            expected="a free head, as of carzero, asg (prompts), open_clip, chexzero; no ordinal relation",
            found=f"family {manifest.family}" + ("" if head is None else f", head {head.name}: a fixed set"),
            cure="take the section 'distil_text' out; `text_graph: false` leaves the text side out",
        )
    _require_unseen(teacher, gated, path)
    encoder = TextEncoder(rule, teacher.read(rule.tokenizer))
    wordings = gather(
        settings.settings,
        encoder,
        file=path.resolve().parent / settings.wordings if settings.wordings else None,
        templates=rule.templates,
        excluded=[
            text
            for each in manifest.findings_of(head.name)
            for text in (*each.prompts, *each.negative_prompts)
        ],
    )
    folder = _student(settings, sources, teacher, wordings, stages, progress)
    about = msgspec.json.decode((folder / _ABOUT).read_bytes(), type=_About)
    said = DistilledText(
        layers=settings.layers,
        teacher_layers=about.of,
        weights=about.weights,
        teacher=about.teacher,
        wordings=about.trained,
        wordings_sha256=about.wordings,
    )
    draft = _with_text(made, folder / _GRAPH, said, own_class=other_graphs_quantised)
    return TextTaught(draft, wordings.held_out, about.warnings)


def _require_unseen(teacher: Draft, gated: Collection[str], path: Path) -> None:
    """Refuse a gate on the pictures whose logits are learned."""
    both = {picture_sha256(each) for each in read_golden(teacher).pictures} & set(gated)
    if both:
        raise BuildError(
            "gate.images",
            "the text side learns logits of golden images, and some are among those it is gated on",
            artefact=f"{path.name}, key gate.images",
            expected="no golden picture in the section 'gate'",
            found=f"{len(both)} of {len(set(gated))} pictures, as the network sees them",
            cure="take other images for the gate",
        )


def _student(
    settings: TextDistilRecipe,
    sources: Sources,
    teacher: Draft,
    wordings: Wordings,
    stages: StageCache,
    progress: Progress,
) -> Path:
    """Return the finished stage: weights, facts, history, curve and the exported graph."""
    golden = read_golden(teacher).pictures
    preprocessing = teacher.manifest.preprocessing
    key = stages.key(
        "distil-text",
        {
            "teacher": sources.hashes(),
            "libraries": teacher.manifest.provenance.libraries,
            "settings": msgspec.to_builtins(settings.settings),
            "wordings": wordings.sha256,
            "pictures": hashlib.sha256(golden.tobytes()).hexdigest(),
            "preprocessing": msgspec.to_builtins(preprocessing),
        },
    )
    work = stages.work("distil-text", key)

    def train(out: Path) -> None:
        progress("distil", "importing torch", 0.0)
        import torch

        from promptray.calibrate.distil.run import CURVE, HISTORY
        from promptray.calibrate.distil.text_run import FACTS, WEIGHTS, distil_text, text_side
        from promptray.export.onnx_graph import export_graph

        pixels = torch.from_numpy(normalise(golden, preprocessing))
        answers = work.parent / "teacher-answers"
        facts = distil_text(
            sources.model, wordings, pixels, settings.settings, work, progress, answers=answers
        )
        side = text_side(sources.model, work)
        (out / _GRAPH).write_bytes(export_graph(side, "text"))
        _require_equal(side, (out / _GRAPH).read_bytes(), _text_graph(teacher), wordings.val[:8])
        for name in (WEIGHTS, FACTS, HISTORY, CURVE):
            shutil.copyfile(work / name, out / name)
        about = _About(facts.weights, facts.teacher, facts.of, facts.trained, facts.wordings, facts.warnings)
        (out / _ABOUT).write_bytes(msgspec.json.encode(about))

    folder, _ = stages.run("distil-text", key, train)
    shutil.rmtree(work, ignore_errors=True)
    return folder


def _require_equal(side: Any, graph: bytes, facts: Graph, prompts: Sequence[EncodedPrompt]) -> None:
    """Hold the exported graph against its torch module on a few wordings."""
    import torch

    from promptray.calibrate.distil.text_student import call

    bound = load_backend(GATED_ON, threads=1).load(lambda: graph, facts).bind({})
    with torch.inference_mode():
        worst = max(
            difference(bound.run(each.arrays), {k: v.numpy() for k, v in call(side, each.arrays).items()})
            for each in prompts
        )
    if not worst <= _EXPORT_TOLERANCE:
        raise BuildError(
            "export.failed",
            "the text student's graph does not compute what its module does",
            artefact="text graph",
            expected=f"within {_EXPORT_TOLERANCE:g} of the largest number",
            found=f"off by {worst:.3g}",
            cure="report it, with the versions that `promptray doctor` lists",
        )


def _with_text(made: Draft, file: Path, said: DistilledText, *, own_class: bool) -> Draft:
    """Put the student's graph in the place of the text graph; the shipped bank stays, with another id."""
    graph = _text_graph(made)
    consumers = [consumers_here(GATED_ON)[0]] if own_class else graph.consumers
    changed = msgspec.structs.replace(graph, consumers=consumers, opset=OPSET)
    manifest = msgspec.structs.replace(
        made.manifest,
        graphs=[changed if each == graph else each for each in made.manifest.graphs],
        provenance=msgspec.structs.replace(made.manifest.provenance, distilled_text=said),
    )
    return with_added_by(Draft(manifest, {**made.files, graph.file: file}))


def added_wordings(
    original: Draft, changed: Draft, held_out: Sequence[EncodedPrompt], stages: StageCache
) -> tuple[Model, Model]:
    """Return original and candidate with the findings as prompts added later, and with held-out wordings.

    The original's come from its fp32 text graph, the candidate's from its own. The held-out wordings are
    named by number: no text of theirs is in a report or in the cache.
    """
    return _with_wordings(original, held_out, stages), _with_wordings(changed, held_out, stages)


def _with_wordings(draft: Draft, held_out: Sequence[EncodedPrompt], stages: StageCache) -> Model:
    manifest = draft.manifest
    head, rule = manifest.text_head, manifest.text
    assert head is not None  # noqa: S101 - a text graph was changed
    assert rule is not None  # noqa: S101 - likewise
    keys = [f"held-out wording {number}" for number in range(1, len(held_out) + 1)]
    facts = {
        "text": hashlib.sha256(draft.read(_text_graph(draft).file)).hexdigest(),
        "bank": head.bank.id,
        "findings": msgspec.to_builtins(manifest.findings_of(head.name)),
        "held out": [token_hash(each).hex() for each in held_out],
    }

    def encode(out: Path) -> None:
        graph = _text_graph(draft)
        bound = load_backend(GATED_ON, threads=1).load(lambda: draft.read(graph.file), graph).bind({})
        encoder = TextEncoder(rule, draft.read(rule.tokenizer))
        entries = [
            _entry(bound, head, each.key, encoder.encode_finding(each.prompts, each.negative_prompts))
            for each in manifest.findings_of(head.name)
        ]
        for key, prompt in zip(keys, held_out, strict=True):
            made = _entry(bound, head, key, EncodedFinding((prompt,)))
            entries.append(replace(made, prompts=()))
        (out / "bank.safetensors").write_bytes(pack(PromptBank(head.bank, entries)))

    folder, _ = stages.run("added", stages.key("added wordings", facts), encode)
    bank = unpack((folder / "bank.safetensors").read_bytes(), head.bank, artefact="bank.safetensors")
    return Model(_named(draft, head, keys), {head.name: bank})


def _entry(bound: BoundGraph, head: Head, key: str, finding: EncodedFinding) -> BankEntry:
    return encode_finding(bound, head.bank, key, finding, allow_empty=True)


def _named(draft: Draft, head: Head, keys: Sequence[str]) -> Draft:
    """Return a draft whose manifest has more findings of a head: for a gate, never to be written."""
    more = [Finding(key=key, display=key, prompts=[], head=head.name) for key in keys]
    findings = [
        finding
        for each in draft.manifest.heads
        for finding in (*draft.manifest.findings_of(each.name), *(more if each.name == head.name else ()))
    ]
    return Draft(msgspec.structs.replace(draft.manifest, findings=findings), draft.files)


def _text_graph(draft: Draft) -> Graph:
    graph = draft.manifest.graph("text")
    assert graph is not None  # noqa: S101 - check_sections looked
    return graph
