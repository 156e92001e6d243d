"""The manifest of a bundle (``bundle.json``) as typed structures; the schema is these classes.

``docs/bundle-format.md`` is the contract in prose. Unknown fields are refused, so that a bundle of a
later format is never half understood.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from promptray.runtime.bundle.calibration_set import CalibrationSet
from promptray.runtime.bundle.engines import NEWEST_OPSET, Engines, EngineSource, Precision, pick
from promptray.runtime.bundle.fields import Consumer, Count, HeadName, Key, Sha256, Side, Text
from promptray.runtime.bundle.gated import Gated
from promptray.runtime.bundle.image_rules import Door, Preprocessing
from promptray.runtime.json_schema import schema_of

FORMAT = "promptray-bundle"
FORMAT_VERSION = 4


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the manifest's other structures: immutable, keyword-only, closed."""


class ModelFacts(_Struct, frozen=True):
    """What a user must know of the model before using it; shown with every result."""

    licence: Text
    intended_use: Text
    training_data: Text


class SourceFile(_Struct, frozen=True):
    """A file the bundle was made from: its base name (never a path) and sha256."""

    name: Text
    sha256: Sha256


class Distilled(_Struct, frozen=True):
    """The student in the place of the checkpoint's image tower; all else is the checkpoint's."""

    student: Text
    """Name of its architecture in timm, or ``own tower with N layers``, the checkpoint's own."""
    weights: Sha256
    """Of the file of its weights."""
    teacher: Sha256
    """Of the weights of the image side and heads, read from `Provenance.checkpoint`, that it learned from."""
    images: CalibrationSet
    """What it learned from, and was watched with."""


class Repacking(_Struct, frozen=True):
    """One time that a bundle was made of another one and what a site changed of its findings."""

    bundle: Sha256
    """Hash of the other."""
    site_revision: Count
    added: list[Key]
    """Findings of the site; no original scored them."""
    removed: list[Key]


class DistilledText(_Struct, frozen=True):
    """The smaller text side that encodes prompts added later: some of the teacher's blocks, trained again."""

    layers: Count
    """Blocks that it has."""
    teacher_layers: Count
    """Blocks of the checkpoint's text encoder."""
    weights: Sha256
    """Of the file of its blocks' weights."""
    teacher: Sha256
    """Of the weights of the text side and its head, read from `Provenance.checkpoint`."""
    wordings: Count
    """Wordings that it learned from."""
    wordings_sha256: Sha256
    """Of their tokens, with those that watched and those held out."""


class Provenance(_Struct, frozen=True):
    """Where the bundle comes from."""

    created: Text
    """UTC date and time, ISO 8601."""
    checkpoint: SourceFile
    recipe: SourceFile
    libraries: dict[str, str]
    sources: list[SourceFile] = []
    """Other files the model was read from: configuration, vocabulary."""
    calibration: CalibrationSet | None = None
    distilled: Distilled | None = None
    distilled_text: DistilledText | None = None
    repacked: list[Repacking] = []
    """The oldest first; all else is the first bundle's."""


class TextRule(_Struct, frozen=True):
    """How a prompt becomes token arrays."""

    head: HeadName
    """The head whose findings have wordings; the text graph gives the entries of its bank."""
    cleaning: Literal["carzero-sentences", "open-clip", "clip", "asg-report", "white-space"]
    tokenizer: Text
    """File name of the tokenizer (``tokenizers`` JSON)."""
    context: Annotated[int, Meta(ge=2)]
    """Most tokens of a prompt, the special ones that the tokenizer adds included; longer ones are cut."""
    templates: Annotated[list[Text], Meta(min_length=1)]
    """Each is filled with a bare finding name by ``prompts.add(key)`` when no wording is given."""
    order: Literal["read", "ignored"] = "read"
    """Whether the text side sees the order of words; ``ignored``: the same words score the same."""


Dims = list[Annotated[int, Meta(ge=1)] | Text]


class TensorFacts(_Struct, frozen=True):
    """One graph input or output, or one tensor of the bank."""

    name: Text
    dtype: Literal["float32", "float16", "int64", "uint8"]
    dims: Dims


class Graph(_Struct, frozen=True):
    """One ONNX file with its role, its consumers and the gates it passed."""

    role: Literal["image", "head", "text"]
    file: Text
    precision: Text
    opset: Annotated[int, Meta(ge=17)]
    inputs: list[TensorFacts]
    outputs: list[TensorFacts]
    consumers: Annotated[list[Consumer], Meta(min_length=1)]
    """What it was gated on: a backend (fp32, any machine) or ``backend@machine class``."""
    head: HeadName | None = None
    """Which one, of a graph whose role is ``head``; None for the others."""

    @property
    def title(self) -> str:
        """What people call it: its role, of a head with its name."""
        return self.role if self.head is None else f"{self.role} {self.head}"


class BankRule(_Struct, frozen=True):
    """The prompt bank of a head: its file, its identity and the layout of its tensors.

    A dimension named ``prompts`` is stacked, one named ``rows`` differs from prompt to prompt and is
    padded up to the next of `row_buckets`: `row_bias` with `row_bias_padding`, other tensors with 0.
    """

    file: Text
    id: Sha256
    identity: dict[str, str]
    """What the id is the hash of: weights, tokenizer, cleaning, layout, ensemble, precision."""
    tensors: Annotated[list[TensorFacts], Meta(min_length=1)]
    row_buckets: Annotated[list[Annotated[int, Meta(ge=1, le=4096)]], Meta(max_length=64)]
    ensemble: Literal["none", "mean-unit"] = "none"
    """How the wordings of one finding become one entry: a single one as it is, or their mean at unit
    length."""
    row_bias: Text | None = None
    """The bank tensor added to attention logits."""
    row_bias_padding: float = -1.0e9
    stored: Literal["float32", "float16"] = "float32"
    """``float16``: in the file, float32 tensors other than `row_bias` are float16; the identity says so."""


class MapFacts(_Struct, frozen=True):
    """The explanation map of a head: a grid over the network's input plane."""

    grid: Annotated[list[Side], Meta(min_length=2, max_length=2)]
    kind: Literal["attention", "similarity", "class-activation"]
    meaning: Text
    tolerance: float
    """Most that a golden map may be off, absolute."""


#: How the scores of a head hang together. ``exclusive``: the findings are alternatives, one of which is true.
#: ``ordinal``: they are, and their order is a scale. ``pair``: each is asked against its own negative.
Relation = Literal["independent", "exclusive", "ordinal", "pair"]
Activation = Literal["none", "softmax", "sigmoid"]
#: Relations of findings one of which is true.
ALTERNATIVES = ("exclusive", "ordinal")


class Head(_Struct, frozen=True):
    """One way to score an image: its graph takes image features and a bank of its own."""

    name: HeadName
    set: Literal["free", "fixed"]
    """Whether findings may be added and removed, or form one unit: scored together or not at all."""
    relation: Relation
    activation: Activation
    """``softmax`` exactly where findings, or a finding and its negative, are alternatives; ``sigmoid`` where
    the model was trained to say yes or no to each."""
    bank: BankRule
    score_tolerance: float
    """Most that a golden score may be off, absolute."""
    map: MapFacts | None = None
    groups: dict[Key, Annotated[list[Key], Meta(min_length=1)]] = {}
    """Unions of alternatives that have a name of their own, for example dense: [C, D]."""


class Code(_Struct, frozen=True):
    """A coded concept as DICOM writes it (PS3.3 8.8): value, scheme, meaning."""

    value: Text
    scheme: Text
    meaning: Text


class Finding(_Struct, frozen=True):
    """What users name."""

    key: Key
    """Unique within its head."""
    display: Text
    prompts: list[Text]
    """Its wordings: an ensemble where there are several, none where the head has no text."""
    head: HeadName
    negative_prompts: list[Text] = []
    """The wordings it is asked against, in a head whose relation is ``pair``."""
    code: Code | None = None


class Examination(_Struct, frozen=True):
    """How the images of one examination become its scores (format document, section 9)."""

    views: Annotated[list[Text], Meta(min_length=1, max_length=64)]
    """The views an examination has, for example ``L CC``; no other image enters."""
    over_views: Literal["mean", "max"]
    """How the views of one side become one; ``max`` of an ordinal head: the view of the greatest expected
    rank."""
    over_sides: Literal["mean", "max", "none"]
    """How the sides become one: likewise, or not at all."""
    require_all: bool = False
    """Refuse an examination that lacks one of the views; otherwise it is reported."""


class Golden(_Struct, frozen=True):
    """Inputs with the original's fp32 answers: the least gate on any machine."""

    tensors: Text
    images: Annotated[list[Text], Meta(min_length=1)]
    licence: Text


class FileFacts(_Struct, frozen=True):
    """Hash and size of one file."""

    sha256: Sha256
    size: Count


class Manifest(_Struct, frozen=True):
    """All of ``bundle.json``."""

    format: Literal["promptray-bundle"]
    format_version: int
    name: Text
    family: Text
    model: ModelFacts
    provenance: Provenance
    door: Door
    preprocessing: Preprocessing
    text: TextRule | None
    heads: Annotated[list[Head], Meta(min_length=1, max_length=16)]
    findings: list[Finding]
    """Those of the first head, then those of the next; within a head in the order of its bank."""
    graphs: Annotated[list[Graph], Meta(min_length=1)]
    golden: Golden
    parity: Text
    files: dict[str, FileFacts]
    examination: Examination | None = None
    """None: nothing says how several images are to be pooled, and they are not."""
    gated: list[Gated] = []
    """Of every backend and class of machine that changed graphs are for."""
    engines: Engines | None = None
    """What engines are compiled from, beside fp32 graphs; None: the recipe asks for nothing."""

    def graph(self, role: str, head: str | None = None) -> Graph | None:
        """Return the graph of a role, of a head by its name, or None where the bundle has none."""
        return next((graph for graph in self.graphs if (graph.role, graph.head) == (role, head)), None)

    def graph_for(self, role: str, consumers: Sequence[str], head: str | None = None) -> Graph | None:
        """Return the graph of a role that is meant for the first of the consumers that has one, or None."""
        own = [graph for graph in self.graphs if (graph.role, graph.head) == (role, head)]
        return next((graph for name in consumers for graph in own if name in graph.consumers), None)

    def engine_sources(self, precision: Precision, opset: int = NEWEST_OPSET) -> list[EngineSource]:
        """Return what a set of engines is compiled from: the image graph, then every head in its order.

        Parameters
        ----------
        precision : {"fp32", "fp16", "int8-qdq", "fp8-qdq"}
            Graphs without a source of it take part in fp16, else in fp32.
        opset : int
            Newest that the compiler reads: 20, and 17 of TensorRT 8.6.

        Returns
        -------
        list of EngineSource
            Empty where the bundle has no such set: no source of this precision, or none at all of a role.
        """
        roles = [("image", None), *(("head", head.name) for head in self.heads)]
        known = self.all_engine_sources
        found = [
            pick([each for each in known if (each.role, each.head) == role], precision, opset)
            for role in roles
        ]
        whole = [each for each in found if each is not None]
        there = len(whole) == len(roles) and any(each.precision == precision for each in whole)
        return whole if there else []

    @property
    def all_engine_sources(self) -> list[EngineSource]:
        """Every graph that engines can be compiled from: fp32 graphs run, and are sources as well."""
        own = [] if self.engines is None else self.engines.sources
        running = [
            EngineSource(
                role=graph.role, head=graph.head, file=graph.file, precision="fp32", opset=graph.opset
            )
            for graph in self.graphs
            if graph.role != "text" and graph.precision == "fp32" and graph.opset <= NEWEST_OPSET
        ]
        return [*own, *running]

    def gated_for(self, consumers: Sequence[str]) -> Gated | None:
        """Return what changed graphs were gated with, for the first of the consumers that has some."""
        return next((each for name in consumers for each in self.gated if each.consumer == name), None)

    def head(self, name: str) -> Head | None:
        """Return the head of a name, or None."""
        return next((head for head in self.heads if head.name == name), None)

    @property
    def text_head(self) -> Head | None:
        """The head whose findings have wordings; None for a model without text."""
        return self.head(self.text.head) if self.text else None

    @property
    def free_head(self) -> Head | None:
        """The head whose findings may be added and removed; None where every set is fixed."""
        return next((head for head in self.heads if head.set == "free"), None)

    def findings_of(self, head: str) -> list[Finding]:
        """Return the findings of a head, in the order of its bank."""
        return [finding for finding in self.findings if finding.head == head]


def bank_id(identity: Mapping[str, str]) -> str:
    """Return the sha256 of a bank's identity: JSON with sorted keys, no white space, ASCII."""
    text = json.dumps(dict(identity), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def to_json(manifest: Manifest) -> bytes:
    """Return the canonical bytes of a manifest: UTF-8, indented by two, one final newline."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def schema() -> dict[str, Any]:
    """Return the JSON Schema of ``bundle.json``."""
    return schema_of(Manifest)
