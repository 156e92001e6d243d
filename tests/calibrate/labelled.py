"""Labels and scores made by a seeded generator, for tests of what is measured of them."""

from __future__ import annotations

import numpy as np

from promptray.calibrate.tables.labels import LabelledImage, Labels
from promptray.calibrate.tables.scores import ScoreTable


def make(
    images: int = 120,
    keys: tuple[str, ...] = ("edema", "mass"),
    *,
    prevalence: float = 0.3,
    per_patient: int = 2,
    sources: list[str] | None = None,
    seed: int = 0,
) -> tuple[Labels, np.ndarray]:
    """Return labels and scores (images, keys) that know something of them."""
    rng = np.random.default_rng(seed)
    values = (rng.random((images, len(keys))) < prevalence).astype(np.int8)
    scores = np.round(values + rng.normal(size=values.shape), 2)
    labels = Labels(
        table="labels.csv",
        sha256="0" * 64,
        images=[LabelledImage(f"{n}.png", n + 2) for n in range(images)],
        keys=keys,
        values=values,
        patients=np.arange(images) // per_patient,
        clustered=True,
        sources=sources,
        unused=(),
    )
    return labels, scores


def table(labels: Labels, scores: np.ndarray, origin: str = "chest") -> ScoreTable:
    """Return the scores as a table."""
    names = [image.name for image in labels.images]
    return ScoreTable(origin, names, labels.keys, {"logit": scores.astype(float)})
