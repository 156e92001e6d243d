"""Small images of a runnable bundle, labelled so that the true probability of a finding is known."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from promptray.runtime.scorer import Scorer
from tests import bundle_factory as factory
from tests.fuzz.small_bundle import write_small

IMAGES = 300
SLOPE, INTERCEPT = 2.0, -0.5


class Labelled(NamedTuple):
    bundle: Path
    images: Path
    labels: Path
    keys: list[str]
    names: list[str]
    logits: np.ndarray
    """Images x findings."""
    truth: np.ndarray
    """Images x findings, bool."""


def labelled(folder: Path) -> Labelled:
    """Write a bundle, images, and a table with columns for both findings; every patient has two images."""
    random = np.random.default_rng(7)
    bundle, images = folder / "small.bundle", folder / "films"
    write_small(folder)
    images.mkdir()
    names = [f"film-{number:03}.png" for number in range(IMAGES)]
    for name in names:
        grey = np.clip(random.normal(random.uniform(40, 215), 60, (factory.SIDE, factory.SIDE)), 0, 255)
        Image.fromarray(grey.astype(np.uint8)).save(images / name)
    with Scorer.open(bundle, site=None) as scorer:
        keys = [finding.key for finding in scorer.prompts]
        results = scorer.score_many([images / name for name in names], modality="DX")
        logits = np.array([[result.scores[key].logit for key in keys] for result in results])
    steep = (logits - logits.mean(0)) / logits.std(0)
    truth = random.random(logits.shape) < 1 / (1 + np.exp(-(SLOPE * steep + INTERCEPT)))
    labels = folder / "labels.csv"
    write_table(labels, names, dict(zip(keys, truth.T.astype(int).tolist(), strict=True)))
    return Labelled(bundle, images, labels, keys, names, logits, truth)


def write_table(path: Path, names: list[str], columns: dict[str, list[object]]) -> Path:
    """Write a table of labels; patients have two images each."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "patient_id", *columns])
        for number, (name, *values) in enumerate(zip(names, *columns.values(), strict=True)):
            rows.writerow([name, f"person {number // 2}", *values])
    return path
