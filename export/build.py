"""Recipe -> bundle: load, export fp32, encode prompts, golden answers, parity gate, write.

Each stage is a function from artefacts to a folder of files, cached by content (see `stage_cache`). torch is
imported only when a stage that needs the original model has to run: a build from cache takes seconds.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import safetensors.numpy

from promptray.export.draft import GATED_ON, TOKENIZER, Draft, Plan, PlannedHead, draft, graphs_of, plan
from promptray.export.golden_inputs import GoldenInputs, golden_inputs, read_pictures
from promptray.export.model_facts import ModelFile, describe
from promptray.export.parity import check_backends
from promptray.export.recipe import read_recipe, with_lines
from promptray.export.sources import Sources
from promptray.export.stage_cache import StageCache, default_cache
from promptray.runtime.alternatives import require_alternatives
from promptray.runtime.backends import load_backend
from promptray.runtime.bank_file import pack, unpack
from promptray.runtime.bundle import Bundle, write_bundle
from promptray.runtime.bundle.manifest import ALTERNATIVES, Head, TextRule
from promptray.runtime.bundle.outside import require_outside
from promptray.runtime.disk import hash_file
from promptray.runtime.errors import BuildError, BundleError, PromptError
from promptray.runtime.graphs import encode_finding
from promptray.runtime.preprocess import normalise
from promptray.runtime.prompts import BankEntry, PromptBank
from promptray.runtime.text import EncodedFinding, TextEncoder

if TYPE_CHECKING:
    from promptray.export.families.base import LoadedText

_LIBRARIES = (
    "promptray",
    "torch",
    "timm",
    "transformers",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "tokenizers",
    "numpy",
)
#: Called with (stage, message, fraction of the whole build).
Progress = Callable[[str, str, float], None]


def build(
    recipe_path: Path,
    output: Path,
    *,
    cache: Path | None = None,
    progress: Progress = lambda stage, message, fraction: None,
) -> Bundle:
    """Build a bundle from a recipe.

    Parameters
    ----------
    recipe_path : Path
        The YAML recipe; paths in it are relative to its folder.
    output : Path
        The bundle directory to make; it must not exist.
    cache : Path, optional
        Folder of finished stages; by default the user's cache folder.
    progress : callable
        Called at every step.

    Returns
    -------
    Bundle
        Written, sealed and gated.

    Raises
    ------
    BuildError
        The recipe, checkpoint, export or gate was refused; nothing is written.
    BundleError
        ``bundle.exists`` or ``bundle.unwritable``.
    """
    recipe = read_recipe(recipe_path)
    require_writable(output)
    with with_lines(recipe_path, recipe):
        made = checked(Sources(recipe, recipe_path), StageCache(cache or default_cache()), progress)
        return write(output, made.draft, made.parity, progress)


@dataclass(frozen=True)
class Checked:
    """An fp32 bundle that was held equal to its original and is not written yet.

    Attributes
    ----------
    plan : Plan
    draft : Draft
        All of it but the report.
    parity : dict
        Content of ``parity.json``.
    """

    plan: Plan
    draft: Draft
    parity: dict[str, Any]


def checked(sources: Sources, stages: StageCache, progress: Progress) -> Checked:
    """Run the stages that are not cached: export, prompts, golden answers; then the fp32 check.

    Raises
    ------
    BuildError
        The checkpoint, export or check was refused.
    """
    recipe, artefact = sources.recipe, sources.recipe_file.name
    inputs = golden_inputs(sources.golden_folder, recipe.golden.licence if recipe.golden else None)
    progress("load", f"hashing {sources.checkpoint.name}", 0.0)
    export_key = stages.key("export", sources.hashes())
    graphs, _ = stages.run("export", export_key, lambda folder: _export(sources, folder, progress))
    facts = msgspec.json.decode((graphs / "model.json").read_bytes(), type=ModelFile)
    made = plan(recipe, artefact, facts, graphs)

    asked = {"findings": msgspec.to_builtins(recipe.findings), "resolved": msgspec.to_builtins(made.findings)}
    banks = {each.head.name: each.head.bank.id for each in made.heads}
    prompts_key = stages.key("prompts", {"export": export_key, "banks": banks, **asked})
    progress("prompts", f"encoding {len(made.findings)} findings", 0.5)
    prompts, _ = stages.run("prompts", prompts_key, lambda folder: _prompts(made, graphs, folder))
    for each in made.heads:
        if each.head.relation in ALTERNATIVES:
            _require_alternatives(each.head, prompts, artefact)

    golden_hashes = [(path.name, hash_file(path)[0]) for path in inputs.files]
    golden_key = stages.key(
        "golden", {"prompts": prompts_key, "images": golden_hashes, "door": msgspec.to_builtins(recipe.door)}
    )
    progress("golden", f"scoring {len(inputs.files)} golden images with the original", 0.55)

    def scored(images: int) -> None:
        part = images / len(inputs.files)
        progress("golden", f"{images} of {len(inputs.files)} scored with the original", 0.55 + 0.2 * part)

    golden, _ = stages.run(
        "golden", golden_key, lambda folder: _golden(sources, made, inputs, folder, scored)
    )

    provenance = sources.provenance(_libraries(), facts.sources)
    made_bundle = draft(made, graphs, prompts, golden, inputs, provenance)
    progress("check", "comparing the graphs with the original", 0.75)
    parity = check_backends(
        made_bundle, recipe.backends, lambda part: progress("check", "comparing", 0.75 + 0.2 * part)
    )
    parity["notes"] = list(facts.notes)
    return Checked(made, made_bundle, parity)


def write(output: Path, made: Draft, parity: dict[str, Any], progress: Progress) -> Bundle:
    """Write the bundle with its report.

    Raises
    ------
    BundleError
        ``bundle.exists`` or ``bundle.unwritable``.
    """
    progress("bundle", f"writing {output.name}", 0.97)
    report = json.dumps(parity, indent=2).encode() + b"\n"
    bundle = write_bundle(output, made.manifest, {**made.files, "parity.json": report})
    progress("bundle", "done", 1.0)
    return bundle


def require_writable(output: Path) -> None:
    """Find out before the long work whether its result can be kept.

    Raises
    ------
    BundleError
        ``bundle.exists`` or ``bundle.unwritable``.
    PromptRayError
        ``output.in-bundle``.
    """
    require_outside(output.parent)
    if os.path.lexists(output):
        raise BundleError(
            "bundle.exists",
            "the output exists already",
            artefact=output.name,
            cure="remove it or choose another output",
        )
    try:  # the writer's own name beside it is the longer one
        output.with_name(f".{output.name}.{'x' * 16}").lstat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise BundleError(
            "bundle.unwritable",
            f"the system takes no output of this name: {getattr(error, 'strerror', None) or error}",
            artefact=output.name[:80],
            cure="choose a shorter name",
        ) from error
    try:  # asking for the right to write is no answer: a file system may grant it and take nothing
        os.rmdir(tempfile.mkdtemp(prefix=f".{output.name[:32]}.", dir=output.absolute().parent))
    except OSError as error:
        raise BundleError(
            "bundle.unwritable",
            f"the folder of the output takes no new folder: {error.strerror}",
            artefact=output.absolute().parent.name,
            cure="make the folder first, or choose another output",
        ) from error


def _export(sources: Sources, folder: Path, progress: Progress) -> None:
    progress("load", "importing torch", 0.02)
    from promptray.export.onnx_graph import export_graph

    progress("load", f"loading {sources.checkpoint.name}", 0.03)
    model = sources.model
    sides = {"image": model.image, **{f"head.{head.name}": head.side for head in model.heads}}
    if model.text is not None:
        _require_tokenizer(model.text, sources.facts.name)
        sides["text"] = model.text.side
        (folder / TOKENIZER).write_bytes(model.text.tokenizer)
    for number, (name, side) in enumerate(sides.items()):
        progress("export", f"exporting the {name} graph", 0.1 + 0.4 * number / len(sides))
        (folder / f"{name}.onnx").write_bytes(export_graph(side, name))
    for head in model.heads:
        for number, tensors in enumerate((head.classes or {}).values()):
            stored = safetensors.numpy.save(dict(tensors))
            (folder / f"class.{head.name}.{number}.safetensors").write_bytes(stored)
    (folder / "model.json").write_bytes(msgspec.json.encode(describe(model)))


def _require_tokenizer(text: LoadedText, family_name: str) -> None:
    """Refuse a tokenizer that the runtime would refuse, before the long work."""
    try:
        TextEncoder(text.rule, text.tokenizer).encode("There is pneumonia.")
    except BundleError as error:
        raise BuildError(
            "text-model.invalid",
            error.message,
            artefact=f"{text.rule.tokenizer} of the family {family_name}",
            expected=error.expected,
            found=error.found,
            cure="use the tokenizer published with the checkpoint; if it is that one, the family must write "
            "it otherwise (docs/families.md, section 5)",
        ) from error


def _prompts(made: Plan, graphs: Path, folder: Path) -> None:
    for each in made.heads:
        of_text = made.text if made.text is not None and made.text.head == each.head.name else None
        entries = _classes(each, graphs) if of_text is None else _wordings(made, each, of_text, graphs)
        bank = PromptBank(each.head.bank, entries)
        (folder / f"{each.head.name}.safetensors").write_bytes(pack(bank))


def _classes(head: PlannedHead, graphs: Path) -> list[BankEntry]:
    """Take every class from the weights, in the order of the findings."""
    numbers = {name: number for number, name in enumerate(head.facts.classes or [])}
    entries = []
    for finding, stated in zip(head.findings, head.stated, strict=True):
        name = f"class.{head.head.name}.{numbers[stated.class_name]}.safetensors"
        entries.append(BankEntry(finding.key, (), safetensors.numpy.load((graphs / name).read_bytes())))
    return entries


def _wordings(made: Plan, head: PlannedHead, text: TextRule, graphs: Path) -> list[BankEntry]:
    """Encode every prompt with the exported text graph: the one that will add prompts later."""
    encoder = TextEncoder(text, (graphs / TOKENIZER).read_bytes())
    bound = (
        load_backend(GATED_ON, threads=1)
        .load((graphs / "text.onnx").read_bytes, graphs_of(made.facts)["text.onnx"])
        .bind({})
    )
    return [
        encode_finding(
            bound,
            head.head.bank,
            finding.key,
            encoder.encode_finding(finding.prompts, finding.negative_prompts),
            allow_empty=stated.finding.allow_empty,
        )
        for finding, stated in zip(head.findings, head.stated, strict=True)
    ]


def _require_alternatives(head: Head, prompts: Path, artefact: str) -> None:
    """Refuse alternatives that are one to the model; after the stage, which may come from the cache."""
    name = f"{head.name}.safetensors"
    bank = unpack((prompts / name).read_bytes(), head.bank, artefact=name)
    try:
        require_alternatives(bank)
    except PromptError as error:
        raise BuildError(
            "recipe.invalid",
            f"{error.message}: {error.artefact}",
            artefact=f"{artefact}, key findings",
            expected=error.expected,
            found=error.found,
            cure=error.cure,
        ) from error


def _golden(
    sources: Sources, made: Plan, inputs: GoldenInputs, folder: Path, scored: Callable[[int], None]
) -> None:
    """Score the golden images with the original model in torch, fp32."""
    import torch

    rule = made.facts.preprocessing
    pictures = read_pictures(inputs, made.recipe.door, rule)
    pixels = torch.from_numpy(normalise(pictures, rule))
    tensors: dict[str, Any] = {"pictures": pictures}
    for number, each in enumerate(made.heads):
        tell = partial(_tell, scored, number * len(pictures), len(made.heads))
        reference = sources.model.head(each.head.name).reference
        answers = reference(pixels, encoded_findings(made, each, sources.model.text), tell)
        tensors[f"logits.{each.head.name}"] = answers.logits
        if answers.maps is not None:
            tensors[f"maps.{each.head.name}"] = answers.maps
    (folder / "golden.safetensors").write_bytes(safetensors.numpy.save(tensors))


def _tell(scored: Callable[[int], None], before: int, heads: int, done: int) -> None:
    scored((before + done) // heads)


def encoded_findings(made: Plan, head: PlannedHead, text: LoadedText | None) -> list[EncodedFinding]:
    """Return the findings of a head as the original takes them, in the order of the bank."""
    if made.text is None or text is None or made.text.head != head.head.name:
        return [EncodedFinding(class_name=stated.class_name) for stated in head.stated]
    encoder = TextEncoder(made.text, text.tokenizer)
    return [encoder.encode_finding(each.prompts, each.negative_prompts) for each in head.findings]


def _libraries() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}
