"""Logits whose true probability is known: 1 / (1 + exp(-(slope * logit + intercept)))."""

from __future__ import annotations

import numpy as np

from promptray.calibrate.probability.sample import Sample, sample

BUNDLE = "0" * 64


def make(
    images: int = 2000, *, slope: float = 2.0, intercept: float = -1.0, seed: int = 0, per_patient: int = 1
) -> Sample:
    """Return a sample; images of one patient are the same image."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=images // per_patient)
    labels = rng.random(len(logits)) < true(logits, slope, intercept)
    patients = np.repeat(np.arange(len(logits)), per_patient)
    return sample("edema", np.repeat(logits, per_patient), np.repeat(labels, per_patient), patients)


def true(logits: np.ndarray, slope: float = 2.0, intercept: float = -1.0) -> np.ndarray:
    return 1 / (1 + np.exp(-(slope * logits + intercept)))
