"""The bundle before it is written: its facts and its files, put together from the finished stages."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from promptray.export.examination import check_examination
from promptray.export.findings import findings_of, head_of, text_rule_of
from promptray.export.golden_inputs import GoldenInputs
from promptray.export.model_facts import OPSET, ModelFile
from promptray.export.recipe import Recipe
from promptray.runtime.bundle.manifest import (
    FORMAT_VERSION,
    BankRule,
    Finding,
    Golden,
    Graph,
    Head,
    Manifest,
    Provenance,
    TextRule,
    bank_id,
)
from promptray.runtime.disk import hash_file

PRECISION = "fp32"
#: The tokenizer's name among the files of the export stage.
TOKENIZER = "tokenizer.json"
#: The backend that the parity gate runs on, and so the only one the graphs are for.
GATED_ON = "onnxruntime-cpu"


@dataclass(frozen=True)
class Plan:
    """What a recipe makes of a model: its head, text rule, findings and bank.

    Attributes
    ----------
    recipe : Recipe
    facts : ModelFile
        Of the exported model.
    head : Head
    text : TextRule or None
    findings : list of Finding
    bank : BankRule
    """

    recipe: Recipe
    facts: ModelFile
    head: Head
    text: TextRule | None
    findings: list[Finding]
    bank: BankRule


def plan(recipe: Recipe, artefact: str, facts: ModelFile, graphs: Path) -> Plan:
    """Settle what the recipe leaves to the family.

    Raises
    ------
    BuildError
        ``recipe.invalid`` for what the family cannot score.
    """
    head = head_of(recipe, facts, artefact)
    check_examination(recipe, [head], artefact)
    text = text_rule_of(recipe, facts, artefact)
    findings = findings_of(recipe, facts, artefact)
    identity = {
        **facts.identity,
        **_text_identity(text, graphs),
        "ensemble": facts.ensemble,
        # The entry of a pair is a difference, which no other head can use.
        "entry": "pair" if head.relation == "pair" else "finding",
        "precision": PRECISION,
    }
    bank = BankRule(
        file="prompts.safetensors",
        id=bank_id(identity),
        identity=identity,
        tensors=facts.bank,
        row_buckets=facts.row_buckets,
        ensemble=facts.ensemble,
        row_bias=facts.row_bias,
    )
    return Plan(recipe, facts, head, text, findings, bank)


def _text_identity(text: TextRule | None, graphs: Path) -> dict[str, str]:
    if text is None:
        return {}
    return {
        "tokenizer": hash_file(graphs / TOKENIZER)[0],
        # Weights do not tell all that makes an entry: heads, pooling and padding are in the graph only.
        "text_graph": hash_file(graphs / "text.onnx")[0],
        "cleaning": text.cleaning,
        "context": str(text.context),
    }


def graph_facts(role: str, facts: ModelFile) -> Graph:
    """Return what the manifest says of the exported graph of a role."""
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


@dataclass(frozen=True)
class Draft:
    """The bundle before it is written, for the gates: same facts, same files."""

    manifest: Manifest
    files: dict[str, bytes | Path]

    @property
    def short_hash(self) -> str:
        """Name for errors."""
        return "draft"

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        content = self.files[name]
        return content if isinstance(content, bytes) else content.read_bytes()


def draft(
    made: Plan, graphs: Path, prompts: Path, golden: Path, inputs: GoldenInputs, provenance: Provenance
) -> Draft:
    """Put the finished stages together. The parity report is still to come."""
    roles = [graph.role for graph in made.facts.graphs if graph.role != "text" or made.recipe.text_graph]
    files: dict[str, bytes | Path] = {
        graph_facts(role, made.facts).file: graphs / f"{role}.onnx" for role in roles
    }
    if made.text is not None:
        files[made.text.tokenizer] = graphs / TOKENIZER
    files["prompts.safetensors"] = prompts / "prompts.safetensors"
    files["golden/golden.safetensors"] = golden / "golden.safetensors"
    files.update(zip(_golden_names(inputs), inputs.files, strict=True))
    return Draft(_manifest(made, inputs, files, provenance), files)


def _golden_names(inputs: GoldenInputs) -> list[str]:
    """Return the pictures' names in the bundle; their order is that of the golden tensors."""
    return [f"golden/images/{number:03}{path.suffix.lower()}" for number, path in enumerate(inputs.files)]


def _manifest(
    made: Plan, inputs: GoldenInputs, files: Mapping[str, bytes | Path], provenance: Provenance
) -> Manifest:
    facts, recipe = made.facts, made.recipe
    graphs = [graph_facts(graph.role, facts) for graph in facts.graphs]
    return Manifest(
        format="promptray-bundle",
        format_version=FORMAT_VERSION,
        name=recipe.name,
        family=facts.family,
        model=recipe.model,
        provenance=provenance,
        door=recipe.door,
        preprocessing=facts.preprocessing,
        text=made.text,
        bank=made.bank,
        heads=[made.head],
        findings=made.findings,
        graphs=[graph for graph in graphs if graph.file in files],
        golden=Golden(
            tensors="golden/golden.safetensors",
            images=_golden_names(inputs),
            licence=inputs.licence,
            score_tolerance=facts.score_tolerance,
            map_tolerance=facts.map_tolerance,
        ),
        parity="parity.json",
        files={},
        examination=recipe.examination,
    )


def created_now() -> str:
    """Return the time of day as provenance writes it, UTC."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
