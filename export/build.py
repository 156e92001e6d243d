"""Recipe -> bundle: load, export fp32, encode prompts, golden answers, parity gate, write.

Each stage is a function from artefacts to a folder of files, cached by content (see `stage_cache`). torch is
imported only when a stage that needs the original model has to run: a build from cache takes seconds.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import safetensors.numpy

from promptray.export.families import facts as family_facts
from promptray.export.families import family
from promptray.export.golden_inputs import GoldenInputs, golden_inputs, read_pictures
from promptray.export.model_facts import OPSET, ModelFile, describe
from promptray.export.parity import check_parity
from promptray.export.recipe import Recipe, read_recipe
from promptray.export.stage_cache import StageCache, default_cache
from promptray.runtime.backends import load_backend
from promptray.runtime.bundle import Bundle, write_bundle
from promptray.runtime.bundle.manifest import (
    BankRule,
    Finding,
    Golden,
    Graph,
    Manifest,
    Provenance,
    SourceFile,
    bank_id,
)
from promptray.runtime.disk import hash_file
from promptray.runtime.errors import BuildError, BundleError
from promptray.runtime.graphs import encode_prompt
from promptray.runtime.preprocess import normalise
from promptray.runtime.prompts import PromptBank, pack
from promptray.runtime.text import EncodedPrompt, TextEncoder

if TYPE_CHECKING:
    from promptray.export.families.base import LoadedModel

PRECISION = "fp32"
#: The backend that the parity gate runs on, and so the only one the graphs are for.
GATED_ON = "onnxruntime-cpu"
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
    _require_writable(output)
    sources = _Sources(recipe, recipe_path)
    inputs = golden_inputs(sources.golden_folder, recipe.golden.licence if recipe.golden else None)
    stages = StageCache(cache or default_cache())
    libraries = _libraries()

    progress("load", f"hashing {sources.checkpoint.name}", 0.0)
    export_key = stages.key("export", {**sources.hashes(), "libraries": libraries})
    graphs, _ = stages.run("export", export_key, lambda folder: _export(sources, folder, progress))
    facts = msgspec.json.decode((graphs / "model.json").read_bytes(), type=ModelFile)

    findings = [msgspec.to_builtins(finding) for finding in recipe.findings]
    prompts_key = stages.key("prompts", {"export": export_key, "findings": findings})
    progress("prompts", f"encoding {len(findings)} prompts", 0.5)
    prompts, _ = stages.run("prompts", prompts_key, lambda folder: _prompts(recipe, facts, graphs, folder))

    golden_hashes = [(path.name, hash_file(path)[0]) for path in inputs.files]
    golden_key = stages.key(
        "golden", {"prompts": prompts_key, "images": golden_hashes, "door": msgspec.to_builtins(recipe.door)}
    )
    progress("golden", f"scoring {len(inputs.files)} golden images with the original", 0.55)

    def scored(images: int) -> None:
        part = images / len(inputs.files)
        progress("golden", f"{images} of {len(inputs.files)} scored with the original", 0.55 + 0.2 * part)

    golden, _ = stages.run(
        "golden", golden_key, lambda folder: _golden(sources, facts, inputs, folder, scored)
    )

    files = _files(facts, graphs, prompts, golden, inputs, text_graph=recipe.text_graph)
    manifest = _manifest(sources, facts, inputs, files, libraries)
    draft = _Draft(manifest, files)
    progress("check", "comparing the graphs with the original", 0.75)
    parity = check_parity(draft, GATED_ON, lambda part: progress("check", "comparing", 0.75 + 0.2 * part))
    parity["notes"] = list(facts.notes)
    files["parity.json"] = json.dumps(parity, indent=2).encode() + b"\n"
    progress("bundle", f"writing {output.name}", 0.97)
    bundle = write_bundle(output, manifest, files)
    progress("bundle", "done", 1.0)
    return bundle


def _require_writable(output: Path) -> None:
    """Find out before the long work whether its result can be kept."""
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
    if not os.access(output.absolute().parent, os.W_OK):
        raise BundleError(
            "bundle.unwritable",
            "the folder of the output does not exist or cannot be written",
            artefact=output.absolute().parent.name,
            cure="make the folder first, or choose another output",
        )


class _Sources:
    """The files a recipe names, and the original model, loaded once and only when asked for."""

    def __init__(self, recipe: Recipe, path: Path) -> None:
        folder = path.resolve().parent
        self.recipe = recipe
        self.recipe_file = SourceFile(name=path.name, sha256=hash_file(path)[0])
        options = family_facts(recipe.family).options
        self.checkpoint = folder / recipe.checkpoint
        self.text_model = folder / recipe.text_model if recipe.text_model else None
        self.golden_folder = folder / recipe.golden.images if recipe.golden else None
        unknown = sorted(set(recipe.model_options) - set(options))
        if unknown:
            raise BuildError(
                "recipe.invalid",
                f"the family {recipe.family} has no such option",
                artefact=f"{path.name}, key model_options.{unknown[0]}",
                expected=f"one of {', '.join(options)}",
                cure="`promptray families` lists the options",
            )
        if not os.path.isfile(self.checkpoint):  # Path.is_file raises for a path too long for the system
            raise BuildError(
                "checkpoint.not-found",
                "the recipe's checkpoint does not exist",
                artefact=f"{path.name}, key checkpoint",
                expected=f"a file {recipe.checkpoint}, relative to the recipe",
                cure="correct the path",
            )

    @cached_property
    def checkpoint_file(self) -> SourceFile:
        return SourceFile(name=self.checkpoint.name, sha256=hash_file(self.checkpoint)[0])

    @cached_property
    def model(self) -> LoadedModel:
        return family(self.recipe.family).load(self.checkpoint, self.text_model, self.recipe.model_options)

    def hashes(self) -> dict[str, Any]:
        """Return what the exported graphs depend on."""
        names = ("config.json", "vocab.txt")
        text = {} if self.text_model is None else {
            name: hash_file(self.text_model / name)[0]
            for name in names
            if os.path.isfile(self.text_model / name)
        }  # fmt: skip
        return {
            "family": self.recipe.family,
            "checkpoint": self.checkpoint_file.sha256,
            "text_model": text,
            "options": self.recipe.model_options,
        }


def _export(sources: _Sources, folder: Path, progress: Progress) -> None:
    progress("load", "importing torch", 0.02)
    from promptray.export.onnx_graph import export_graph

    progress("load", f"loading {sources.checkpoint.name}", 0.03)
    model = sources.model
    for number, side in enumerate(model.sides):
        progress("export", f"exporting the {side.role} graph", 0.1 + 0.13 * number)
        (folder / f"{side.role}.onnx").write_bytes(export_graph(side))
    (folder / "tokenizer.json").write_bytes(model.tokenizer)
    (folder / "model.json").write_bytes(msgspec.json.encode(describe(model)))


def _prompts(recipe: Recipe, facts: ModelFile, graphs: Path, folder: Path) -> None:
    """Encode every prompt with the exported text graph: the one that will add prompts later."""
    encoder = TextEncoder(facts.text, (graphs / "tokenizer.json").read_bytes())
    side = next(graph for graph in facts.graphs if graph.role == "text")
    bound = (
        load_backend(GATED_ON, threads=1)
        .load((graphs / "text.onnx").read_bytes(), _graph(side.role, facts))
        .bind({})
    )
    entries = [
        encode_prompt(encoder, bound, finding.key, finding.prompt, allow_empty=finding.allow_empty)
        for finding in recipe.findings
    ]
    (folder / "prompts.safetensors").write_bytes(pack(PromptBank(_bank(facts, graphs), entries)))


def _golden(
    sources: _Sources, facts: ModelFile, inputs: GoldenInputs, folder: Path, scored: Callable[[int], None]
) -> None:
    """Score the golden images with the original model in torch, fp32."""
    import torch

    pictures = read_pictures(inputs, sources.recipe.door, facts.preprocessing)
    prompts = _encoded(sources, facts)
    pixels = torch.from_numpy(normalise(pictures, facts.preprocessing))
    answers = sources.model.reference(pixels, prompts, scored)
    tensors: dict[str, Any] = {"pictures": pictures, "logits": answers.logits}
    if answers.maps is not None:
        tensors["maps"] = answers.maps
    (folder / "golden.safetensors").write_bytes(safetensors.numpy.save(tensors))


def _encoded(sources: _Sources, facts: ModelFile) -> Sequence[EncodedPrompt]:
    encoder = TextEncoder(facts.text, sources.model.tokenizer)
    return [encoder.encode(finding.prompt) for finding in sources.recipe.findings]


def _graph(role: str, facts: ModelFile) -> Graph:
    side = next(graph for graph in facts.graphs if graph.role == role)
    return Graph(
        role=side.role,
        file=f"graphs/{role}/{PRECISION}-{OPSET}.onnx",
        precision=PRECISION,
        opset=OPSET,
        inputs=side.inputs,
        outputs=side.outputs,
        consumers=[GATED_ON],
    )


def _bank(facts: ModelFile, graphs: Path) -> BankRule:
    identity = {
        **facts.identity,
        "tokenizer": hash_file(graphs / "tokenizer.json")[0],
        "cleaning": facts.text.cleaning,
        "context": str(facts.text.context),
        "template": facts.text.template,
        "precision": PRECISION,
    }
    return BankRule(
        file="prompts.safetensors",
        id=bank_id(identity),
        identity=identity,
        tensors=facts.bank,
        row_buckets=facts.row_buckets,
        row_bias=facts.row_bias,
    )


def _files(
    facts: ModelFile, graphs: Path, prompts: Path, golden: Path, inputs: GoldenInputs, *, text_graph: bool
) -> dict[str, bytes | Path]:
    roles = [graph.role for graph in facts.graphs if graph.role != "text" or text_graph]
    files: dict[str, bytes | Path] = {_graph(role, facts).file: graphs / f"{role}.onnx" for role in roles}
    files["tokenizer.json"] = graphs / "tokenizer.json"
    files["prompts.safetensors"] = prompts / "prompts.safetensors"
    files["golden/golden.safetensors"] = golden / "golden.safetensors"
    return {**files, **dict(zip(_golden_names(inputs), inputs.files, strict=True))}


def _golden_names(inputs: GoldenInputs) -> list[str]:
    """Return the pictures' names in the bundle; their order is that of the golden tensors."""
    return [f"golden/images/{number:03}{path.suffix.lower()}" for number, path in enumerate(inputs.files)]


def _manifest(
    sources: _Sources, facts: ModelFile, inputs: GoldenInputs, files: Mapping[str, bytes | Path],
    libraries: dict[str, str],
) -> Manifest:  # fmt: skip
    recipe = sources.recipe
    tokenizer = Path(str(files["tokenizer.json"]))
    return Manifest(
        format="promptray-bundle",
        format_version=1,
        name=recipe.name,
        family=facts.family,
        model=recipe.model,
        provenance=Provenance(
            created=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            checkpoint=sources.checkpoint_file,
            recipe=sources.recipe_file,
            libraries=libraries,
        ),
        door=recipe.door,
        preprocessing=facts.preprocessing,
        text=facts.text,
        bank=_bank(facts, tokenizer.parent),
        heads=facts.heads,
        findings=[
            Finding(
                key=finding.key,
                display=finding.display or finding.key,
                prompt=finding.prompt,
                head=facts.heads[0].name,
                code=finding.code,
            )
            for finding in recipe.findings
        ],
        graphs=[
            _graph(graph.role, facts) for graph in facts.graphs if _graph(graph.role, facts).file in files
        ],
        golden=Golden(
            tensors="golden/golden.safetensors",
            images=_golden_names(inputs),
            licence=inputs.licence,
            score_tolerance=facts.score_tolerance,
            map_tolerance=facts.map_tolerance,
        ),
        parity="parity.json",
        files={},
    )


@dataclass(frozen=True)
class _Draft:
    """The bundle before it is written, for the gates: same facts, same files."""

    manifest: Manifest
    files: Mapping[str, bytes | Path]

    @property
    def short_hash(self) -> str:
        return "draft"

    def read(self, name: str) -> bytes:
        content = self.files[name]
        return content if isinstance(content, bytes) else content.read_bytes()


def _libraries() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}
