"""What a recipe says under ``distil_text``, but for the file of wordings."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from promptray.calibrate.distil.settings import Count, Weight


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the settings: unknown keys are refused."""


class TextLosses(_Struct, frozen=True, kw_only=True):
    """Weights of the losses; 0 leaves one out. ``promptray.calibrate.distil.text_train`` has the formulas."""

    feature: Weight = 1.0
    logit: Weight = 1.0


class TextDistil(_Struct, frozen=True, kw_only=True):
    """How a smaller text side is made."""

    layers: Annotated[int, Meta(ge=1, le=1000)]
    """Blocks that are kept of the teacher's text encoder, evenly spaced."""
    generated: Annotated[int, Meta(ge=0, le=1_000_000)] = 2000
    """Wordings to learn from that are made of the lexicon and the prompt packs, in English."""
    held_out: Annotated[int, Meta(ge=1, le=256)] = 16
    """Topics that are never learned from; a wording of each is gated beside the recipe's findings."""
    losses: TextLosses = TextLosses()
    epochs: Count = 20
    steps: Count | None = None
    """Ends the training earlier."""
    batch: Annotated[int, Meta(ge=2, le=65536)] = 16
    rate: Annotated[float, Meta(gt=0, le=1)] = 2e-4
    """Highest learning rate of AdamW."""
    warm_up: Annotated[float, Meta(ge=0, lt=1)] = 0.1
    """Share of the steps in which the rate rises from 0; then it falls as a cosine."""
    weight_decay: Annotated[float, Meta(ge=0, le=1)] = 0.01
    validation: Annotated[float, Meta(gt=0, le=0.5)] = 0.1
    """Share of the topics that training is watched with."""
    seed: Annotated[int, Meta(ge=0, lt=2**31)] = 0
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        if not any(msgspec.structs.astuple(self.losses)):
            raise ValueError("every loss has weight 0: nothing would be learned")

    @property
    def precision(self) -> Literal["fp32"]:
        """Of the products in training."""
        return "fp32"
