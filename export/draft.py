"""The bundle before it is written: its facts and its files, put together from the finished stages."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from promptray.export.examination import check_examination
from promptray.export.findings import Stated, by_head, findings_of, settings_of, text_rule_of
from promptray.export.golden_inputs import GoldenInputs
from promptray.export.model_facts import OPSET, GraphFile, HeadFile, ModelFile
from promptray.export.recipe import Recipe
from promptray.runtime.backends import HOST
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
#: The backend that every build holds its graphs on, and the only one for text.
GATED_ON = HOST


@dataclass(frozen=True)
class PlannedHead:
    """What a recipe makes of one head.

    Attributes
    ----------
    facts : HeadFile
        Of the exported head.
    head : Head
        As the manifest will say it.
    stated : list of Stated
        Its findings as the recipe says them.
    findings : list of Finding
        The same as the manifest will say them, in the order of the bank.
    """

    facts: HeadFile
    head: Head
    stated: list[Stated]
    findings: list[Finding]


@dataclass(frozen=True)
class Plan:
    """What a recipe makes of a model.

    Attributes
    ----------
    recipe : Recipe
    facts : ModelFile
        Of the exported model.
    text : TextRule or None
    heads : list of PlannedHead
    """

    recipe: Recipe
    facts: ModelFile
    text: TextRule | None
    heads: list[PlannedHead]

    @property
    def findings(self) -> list[Finding]:
        """All findings, one head after the other."""
        return [finding for each in self.heads for finding in each.findings]


def plan(recipe: Recipe, artefact: str, facts: ModelFile, graphs: Path) -> Plan:
    """Settle what the recipe leaves to the family.

    Raises
    ------
    BuildError
        ``recipe.invalid`` for what the family cannot score.
    """
    text = text_rule_of(recipe, facts, artefact)
    stated = by_head(recipe, facts, artefact)
    heads = [_planned(recipe, artefact, facts, head, stated[head.name], text, graphs) for head in facts.heads]
    check_examination(recipe, [each.head for each in heads], artefact)
    return Plan(recipe, facts, text, heads)


def _planned(
    recipe: Recipe,
    artefact: str,
    facts: ModelFile,
    head: HeadFile,
    stated: list[Stated],
    text: TextRule | None,
    graphs: Path,
) -> PlannedHead:
    settings = settings_of(recipe, facts, head, stated, artefact)
    findings = findings_of(recipe, facts.text, head, settings.relation, stated, artefact)
    identity = {
        **head.identity,
        **(_text_identity(text, graphs) if text is not None and text.head == head.name else {}),
        "ensemble": head.ensemble,
        # The entry of a pair is a difference, which no other head can use.
        "entry": "pair" if settings.relation == "pair" else "finding",
        "precision": PRECISION,
    }
    bank = BankRule(
        file=f"banks/{head.name}.safetensors",
        id=bank_id(identity),
        identity=identity,
        tensors=head.bank,
        row_buckets=head.row_buckets,
        ensemble=head.ensemble,
        row_bias=head.row_bias,
    )
    made = Head(
        name=head.name,
        # A step added or left out would shift every place on a scale.
        set="fixed" if settings.relation == "ordinal" else head.set,
        relation=settings.relation,
        activation=settings.activation,
        bank=bank,
        score_tolerance=head.score_tolerance,
        map=head.map,
        groups=settings.groups,
    )
    return PlannedHead(head, made, stated, findings)


def _text_identity(text: TextRule, graphs: Path) -> dict[str, str]:
    return {
        "tokenizer": hash_file(graphs / TOKENIZER)[0],
        # Weights do not tell all that makes an entry: heads, pooling and padding are in the graph only.
        "text_graph": hash_file(graphs / "text.onnx")[0],
        "cleaning": text.cleaning,
        "context": str(text.context),
    }


def graphs_of(facts: ModelFile, backends: Sequence[str] = (GATED_ON,)) -> dict[str, Graph]:
    """Return what the manifest says of every exported graph, by the graph's name in the export stage."""
    found = {"image.onnx": _graph("image", facts.image, backends)}
    for head in facts.heads:
        found[f"head.{head.name}.onnx"] = _graph("head", head.graph, backends, head.name)
    if facts.text_graph is not None:
        found["text.onnx"] = _graph("text", facts.text_graph, [GATED_ON])
    return found


def _graph(
    role: Literal["image", "head", "text"], facts: GraphFile, backends: Sequence[str], head: str | None = None
) -> Graph:
    folder = role if head is None else f"{role}/{head}"
    return Graph(
        role=role,
        head=head,
        file=f"graphs/{folder}/{PRECISION}-{OPSET}.onnx",
        precision=PRECISION,
        opset=OPSET,
        inputs=facts.inputs,
        outputs=facts.outputs,
        consumers=list(backends),
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
    exported = graphs_of(made.facts, made.recipe.backends)
    kept = {name: graph for name, graph in exported.items() if graph.role != "text" or made.recipe.text_graph}
    files: dict[str, bytes | Path] = {graph.file: graphs / name for name, graph in kept.items()}
    if made.text is not None:
        files[made.text.tokenizer] = graphs / TOKENIZER
    for each in made.heads:
        files[each.head.bank.file] = prompts / f"{each.head.name}.safetensors"
    files["golden/golden.safetensors"] = golden / "golden.safetensors"
    files.update(zip(_golden_names(inputs), inputs.files, strict=True))
    return Draft(_manifest(made, list(kept.values()), inputs, provenance), files)


def _golden_names(inputs: GoldenInputs) -> list[str]:
    """Return the pictures' names in the bundle; their order is that of the golden tensors."""
    return [f"golden/images/{number:03}{path.suffix.lower()}" for number, path in enumerate(inputs.files)]


def _manifest(made: Plan, graphs: list[Graph], inputs: GoldenInputs, provenance: Provenance) -> Manifest:
    facts, recipe = made.facts, made.recipe
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
        heads=[each.head for each in made.heads],
        findings=made.findings,
        graphs=graphs,
        golden=Golden(
            tensors="golden/golden.safetensors",
            images=_golden_names(inputs),
            licence=inputs.licence,
        ),
        parity="parity.json",
        files={},
        examination=recipe.examination,
    )


def created_now() -> str:
    """Return the time of day as provenance writes it, UTC."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
