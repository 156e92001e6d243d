"""What the exported files need to say of their model: written by the export stage, read by the later ones."""

from __future__ import annotations

from typing import Literal

import msgspec

from promptray.export.families.base import LoadedHead, LoadedModel, Side
from promptray.runtime.bundle.image_rules import Preprocessing
from promptray.runtime.bundle.manifest import MapFacts, Relation, TensorFacts, TextRule

#: ONNX operator set of every exported graph.
OPSET = 20


class GraphFile(msgspec.Struct, frozen=True, kw_only=True):
    """One exported graph."""

    inputs: list[TensorFacts]
    outputs: list[TensorFacts]


class HeadFile(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a loaded head but its module (see `promptray.export.families.base.LoadedHead`)."""

    name: str
    set: Literal["free", "fixed"]
    graph: GraphFile
    bank: list[TensorFacts]
    relations: list[Relation]
    activation: Literal["none", "sigmoid"]
    identity: dict[str, str]
    score_tolerance: float
    map: MapFacts | None
    classes: list[str] | None
    """Names of a classifier's classes, in the order of its weights."""
    ensemble: Literal["none", "mean-unit"]
    row_buckets: list[int]
    row_bias: str | None


class ModelFile(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a loaded model but its modules."""

    family: str
    preprocessing: Preprocessing
    image: GraphFile
    text: TextRule | None
    text_graph: GraphFile | None
    heads: list[HeadFile]
    notes: list[str]
    sources: list[str] | None


def describe(model: LoadedModel) -> ModelFile:
    """Return the facts of a loaded model."""
    return ModelFile(
        family=model.family,
        preprocessing=model.preprocessing,
        image=_graph(model.image),
        text=model.text.rule if model.text else None,
        text_graph=_graph(model.text.side) if model.text else None,
        heads=[_head(head) for head in model.heads],
        notes=list(model.notes),
        sources=None if model.sources is None else list(model.sources),
    )


def _graph(side: Side) -> GraphFile:
    return GraphFile(inputs=list(side.inputs), outputs=list(side.outputs))


def _head(head: LoadedHead) -> HeadFile:
    return HeadFile(
        name=head.name,
        set=head.set,
        graph=_graph(head.side),
        bank=list(head.bank),
        relations=list(head.relations),
        activation=head.activation,
        identity=dict(head.identity),
        score_tolerance=head.score_tolerance,
        map=head.map,
        classes=None if head.classes is None else list(head.classes),
        ensemble=head.ensemble,
        row_buckets=list(head.row_buckets),
        row_bias=head.row_bias,
    )
