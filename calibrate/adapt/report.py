"""The report of ``promptray adapt``: a versioned JSON document; the schema is these classes."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from promptray.calibrate.evaluation_report import Estimate, RefusedImage
from promptray.runtime.backends import BackendFacts
from promptray.runtime.json_schema import schema_of

StageName = Literal["zero-shot", "probe", "fine-tune"]
PartName = Literal["train", "val", "test"]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the report's structures: immutable, keyword-only, closed."""


class FileRef(_Struct, frozen=True):
    """A file by its base name and hash."""

    name: str
    sha256: str


class Part(_Struct, frozen=True):
    """One part of the images."""

    name: PartName
    images: int
    units: int
    classes: dict[str, int]
    """Images of each class."""


class Division(_Struct, frozen=True):
    """How the images were divided."""

    how: Literal["stated", "stated, val taken from train", "made"]
    """By a column of the table, or here."""
    seed: int | None
    """Of what was divided here; None where all was stated."""
    units: str
    """What was kept whole, and is drawn for the intervals."""
    level: Literal["patient", "group", "exam", "image"]
    columns: dict[str, str]
    """Where the table says it: patient, exam, group -> column."""
    parts: list[Part]
    copies: list[list[str]]
    """Places of images that are one picture. The first of each counts, the others are left out."""


class Data(_Struct, frozen=True):
    """The images and their labels. No ids of patients."""

    labels: FileRef
    column: str
    images: int
    """With a class, and readable."""
    unlabelled: int
    """Rows without a class: left out."""
    left_out: list[RefusedImage]
    """Labelled images that are not there or cannot be read: left out."""
    unused_columns: list[str]
    unlabelled_files: int
    """Files of the folder that no row names."""


class ProbeFacts(_Struct, frozen=True):
    """How the probe was fitted."""

    c: float
    """Inverse strength of the L2 penalty."""
    folds: int
    """Of the cross-validation inside the train part, units whole; 0: too few units, so `c` is a default."""
    losses: list[tuple[float, float]]
    """Each inverse strength that was tried, with the log loss of the units held out."""
    class_weights: Literal["none", "balanced"]
    width: int
    """Numbers of an image vector."""
    converged: bool


class EpochFacts(_Struct, frozen=True):
    """Mean losses of an epoch and its learning rate. Epoch 0 is the network before training."""

    train_loss: float | None
    val_loss: float
    rate: float


class FineTuneFacts(_Struct, frozen=True):
    """How fine-tuning went."""

    started_from: Literal["probe", "zero"]
    """The linear layer it began with."""
    best: int
    """The epoch that is kept: that of the least validation loss. 0: training did not help."""
    history: list[EpochFacts]
    epochs: int
    batch: int
    rate: float
    weight_decay: float
    smoothing: float
    factor: float
    patience: int
    stop: int
    class_weights: Literal["none", "balanced"]
    seed: int


class StageReport(_Struct, frozen=True):
    """One stage: the bundle that was scored, and what it scored on the test part."""

    name: StageName
    bundle: FileRef
    checkpoint: FileRef
    backend: BackendFacts
    refused: list[RefusedImage]
    """Test images that got no score."""
    numbers: dict[str, Estimate]
    confusion: list[list[int]]
    """Rows: labels; columns: predictions; in the order of the classes."""
    probe: ProbeFacts | None
    fine_tune: FineTuneFacts | None


class Difference(_Struct, frozen=True):
    """What a later stage has more than an earlier one, the same units drawn for both."""

    earlier: StageName
    later: StageName
    numbers: dict[str, Estimate]


class Advice(_Struct, frozen=True):
    """What to roll out."""

    stage: StageName | None
    """None: nothing is recommended."""
    by: str
    """The number that decides."""
    reasons: list[str]


class Intervals(_Struct, frozen=True):
    """How intervals were made."""

    confidence: float
    draws: int
    seed: int
    units: int
    """Independent units of the test part."""


class AdaptationReport(_Struct, frozen=True):
    """All of ``report.json``. It holds no patient ids."""

    schema: Literal["promptray-adaptation"]
    schema_version: Literal[1]
    software: str
    recipe: FileRef
    family: str
    classes: list[str]
    ordinal: bool
    """Whether the classes are the steps of a scale, in this order."""
    groups: dict[str, list[str]]
    data: Data
    division: Division
    intervals: Intervals
    stages: list[StageReport]
    differences: list[Difference]
    advice: Advice
    notes: list[str]


def adaptation_schema() -> dict[str, Any]:
    """Return the JSON Schema of the report."""
    return schema_of(AdaptationReport)
