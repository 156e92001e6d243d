"""What a recipe says under ``distil``."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from promptray.calibrate.quantise.calibration_images import ENOUGH
from promptray.runtime.bundle.fields import Text
from promptray.runtime.errors import BuildError

Weight = Annotated[float, Meta(ge=0, le=1000)]
Share = Annotated[float, Meta(ge=0, le=0.5)]
Count = Annotated[int, Meta(ge=1, le=10_000_000)]
Layers = Annotated[int, Meta(ge=1, le=10_000)] | Literal["all"]

#: The student that is made of the teacher's own tower.
TEACHER = "teacher"


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the settings: unknown keys are refused."""


class LossWeights(_Struct, frozen=True, kw_only=True):
    """Weights of the losses; 0 leaves one out. ``promptray.calibrate.distil.losses`` has the formulas."""

    feature: Weight = 1.0
    similarity: Weight = 1.0
    logit: Weight = 1.0
    report: Weight = 0.0
    """Soft labels from the images' reports; needs reports."""
    tag: Weight = 0.0
    """Binary cross-entropy with known findings; needs reports or labels."""


class Augmentation(_Struct, frozen=True, kw_only=True):
    """How far a view may be from the picture. Never mirrored: left and right are findings."""

    views: Annotated[int, Meta(ge=1, le=64)] = 4
    """Views of each picture, the first of which is the picture itself."""
    rotate: Annotated[float, Meta(ge=0, le=45)] = 5.0
    """Degrees, either way."""
    shift: Share = 0.05
    """Share of the side, either way."""
    scale: Share = 0.1
    contrast: Share = 0.15
    brightness: Share = 0.1
    mix: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """Share of the views that are mixed with a view of another picture that is learned from."""


class Simulate(_Struct, frozen=True, kw_only=True):
    """Learning under the quantisation that the image graph will have (`distil.quantised`)."""

    start: Annotated[float, Meta(ge=0, lt=1)] = msgspec.field(default=0.5, name="from")
    """Share of the steps before it begins. 0 suits a student that already knows what it is to do."""
    images: Annotated[int, Meta(ge=1)] = ENOUGH
    """Of those that are learned from, how many ranges are taken from, after every epoch."""


class Distil(_Struct, frozen=True, kw_only=True):
    """How a student is made."""

    student: Text
    """Name of a timm architecture, or ``teacher``: the teacher's own tower. Nothing is downloaded."""
    layers: Layers | None = None
    """Of the teacher's own tower: how many of its blocks are kept, or ``all``."""
    weights: Text | None = None
    """Safetensors file of that architecture to begin with, relative to the recipe."""
    losses: LossWeights = LossWeights()
    augment: Augmentation = Augmentation()
    epochs: Count = 100
    steps: Count | None = None
    """Ends the training earlier."""
    batch: Annotated[int, Meta(ge=2, le=65536)] = 32
    rate: Annotated[float, Meta(gt=0, le=1)] = 5e-4
    """Highest learning rate of AdamW."""
    warm_up: Annotated[float, Meta(ge=0, lt=1)] = 0.1
    """Share of the steps in which the rate rises from 0; then it falls as a cosine."""
    weight_decay: Annotated[float, Meta(ge=0, le=1)] = 0.05
    validation: Annotated[float, Meta(gt=0, le=0.5)] = 0.1
    """Share of the images, by patient, that training is watched with."""
    simulate: Simulate | None = None
    """Learn while quantised; which layers, and how, is for the scheme of the image graph to say."""
    seed: Annotated[int, Meta(ge=0, lt=2**31)] = 0
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the student's products in training, on a GPU."""

    def __post_init__(self) -> None:
        if not any(msgspec.structs.astuple(self.losses)):
            raise ValueError("every loss has weight 0: nothing would be learned")
        if self.precision != "fp32" and self.device == "cpu":
            raise ValueError(f"precision {self.precision} needs device cuda")
        if (self.student == TEACHER) != (self.layers is not None):
            raise ValueError(
                f"'layers' is for 'student: {TEACHER}', and that needs it: a number of blocks or 'all'"
            )
        if self.student == TEACHER and self.weights is not None:
            raise ValueError(f"'student: {TEACHER}' begins with the teacher's weights, not with 'weights'")

    @property
    def name(self) -> str:
        """What the student is, for people."""
        if self.layers is None:
            return self.student
        return f"own tower with {self.layers} {'layer' if self.layers == 1 else 'layers'}"


def read_settings(content: object) -> Distil:
    """Read plain values, as a recipe has them.

    Raises
    ------
    BuildError
        ``distil.settings``, naming the key.
    """
    try:
        return msgspec.convert(content, Distil)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        raise BuildError(
            "distil.settings",
            what,
            artefact=f"distil{where.rstrip('`')}",
            cure="docs/distillation.md lists every key",
        ) from error
