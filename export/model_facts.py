"""What the exported files need to say of their model: written by the export stage, read by the later ones."""

from __future__ import annotations

from typing import Literal

import msgspec

from promptray.export.families.base import LoadedModel
from promptray.runtime.bundle.manifest import Head, Preprocessing, Relation, TensorFacts, TextRule

#: ONNX operator set of every exported graph.
OPSET = 20


class GraphFile(msgspec.Struct, frozen=True, kw_only=True):
    """One exported graph."""

    role: Literal["image", "head", "text"]
    inputs: list[TensorFacts]
    outputs: list[TensorFacts]


class ModelFile(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a loaded model but its modules."""

    family: str
    graphs: list[GraphFile]
    preprocessing: Preprocessing
    text: TextRule | None
    classes: list[str] | None
    """Names of a classifier's classes, in the order of its weights."""
    head: Head
    relations: list[Relation]
    ensemble: Literal["none", "mean-unit"]
    bank: list[TensorFacts]
    row_buckets: list[int]
    row_bias: str | None
    identity: dict[str, str]
    score_tolerance: float
    map_tolerance: float
    notes: list[str]


def describe(model: LoadedModel) -> ModelFile:
    """Return the facts of a loaded model."""
    return ModelFile(
        family=model.family,
        graphs=[
            GraphFile(role=side.role, inputs=list(side.inputs), outputs=list(side.outputs))
            for side in model.sides
        ],
        preprocessing=model.preprocessing,
        text=model.text,
        classes=None if model.classes is None else list(model.classes),
        head=model.head,
        relations=list(model.relations),
        ensemble=model.ensemble,
        bank=list(model.bank),
        row_buckets=list(model.row_buckets),
        row_bias=model.row_bias,
        identity=dict(model.identity),
        score_tolerance=model.score_tolerance,
        map_tolerance=model.map_tolerance,
        notes=list(model.notes),
    )
