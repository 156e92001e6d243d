"""An original and candidates of it, made by a seeded generator, whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from promptray.calibrate.gates import GateData, ModelScores

KEYS = ("edema", "mass")


def make(images: int = 800, *, keys: tuple[str, ...] = KEYS, seed: int = 0, **fields: Any) -> GateData:
    """Return an original and itself as the candidate; half of the images are labelled present."""
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(images)[:, None] % 2.0, len(keys))
    logits = 2.0 * labels + rng.normal(size=labels.shape)
    maps = rng.random((*labels.shape, 6, 5))
    original = ModelScores("fp32", logits, maps)
    made = GateData(
        keys,
        original,
        replace(original, name="int8"),
        again=replace(original, name="fp32, opset 20"),
        other_shapes={"batch 4": logits},
        labels=labels,
        patients=np.arange(images),
    )
    return replace(made, **fields)


def noise(data: GateData, scale: float, seed: int = 1) -> np.ndarray:
    """Return the candidate's logits with noise of `scale` spreads of each finding."""
    logits = np.asarray(data.candidate.logits)
    return logits + np.random.default_rng(seed).normal(scale=scale, size=logits.shape) * logits.std(0)


def with_logits(data: GateData, logits: np.ndarray) -> GateData:
    """Return the data with other logits of the candidate, the same in every shape of call."""
    shapes = dict.fromkeys(data.other_shapes, logits)
    return replace(data, candidate=replace(data.candidate, logits=logits), other_shapes=shapes)


def with_maps(data: GateData, maps: np.ndarray) -> GateData:
    """Return the data with other maps of the candidate."""
    return replace(data, candidate=replace(data.candidate, maps=maps))
