"""What the scores of images that a model never saw say, as numbers for ``results.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.auroc import auroc_interval
from reference.wordings import CLASSES, MEANINGS

SHUFFLES = 200


@dataclass(frozen=True)
class Scored:
    """Scores of every image by a model that did not see its patient, one column per wording.

    Attributes
    ----------
    scores : ndarray of float, (images, wordings)
    wordings : list of (meaning, kind)
        Of each column; kind is ``"trained"`` or ``"held_out"``.
    texts : list of str
        The wording itself.
    labels, patients, folds : ndarray, (images,)
        Class number, patient, and the fold in which the image was tested.
    """

    scores: NDArray[np.float64]
    wordings: list[tuple[str, str]]
    texts: list[str]
    labels: NDArray[np.int64]
    patients: NDArray[np.str_]
    folds: NDArray[np.int64]

    def columns(self, meaning: str, kind: str | None = None) -> NDArray[np.int64]:
        """Return the columns of a meaning."""
        return np.array(
            [
                number
                for number, (of, what) in enumerate(self.wordings)
                if of == meaning and kind in (None, what)
            ]
        )


def measure(scored: Scored, *, seed: int) -> dict[str, Any]:
    """Measure all meanings, and what is left when prompts are shuffled."""
    everyone = np.ones(len(scored.labels), dtype=bool)
    sick = scored.labels != CLASSES.index("normal")
    tasks = {
        "pneumonia against normal": (("pneumonia", "no pneumonia", "normal", "not normal"), everyone),
        "bacterial against viral, among pneumonia": (
            ("bacterial pneumonia", "no bacterial pneumonia", "viral pneumonia", "no viral pneumonia"),
            sick,
        ),
    }
    report: dict[str, Any] = {
        task: {
            meaning: {
                kind: _measure_meaning(scored, meaning, kind, images) for kind in ("trained", "held_out")
            }
            for meaning in meanings
        }
        for task, (meanings, images) in tasks.items()
    }
    report["shuffled prompts"] = _measure_shuffled(scored, sick, seed)
    return report


def _measure_meaning(scored: Scored, meaning: str, kind: str, images: NDArray[np.bool_]) -> dict[str, Any]:
    """Measure each wording's AUROC for the images it is true of; their mean gets the interval."""
    columns = scored.columns(meaning, kind)
    true_of = [CLASSES.index(name) for name in MEANINGS[meaning].true_of]
    labels, patients = np.isin(scored.labels, true_of)[images], scored.patients[images]
    scores = scored.scores[images][:, columns]
    each = [auroc_interval(labels, scores[:, c], patients, draws=1).value for c in range(len(columns))]
    folds = scored.folds[images]
    within = [
        auroc_interval(labels[folds == f], scores[folds == f], patients[folds == f], draws=1).value
        for f in np.unique(folds)
    ]
    worst = int(np.argmin(each))
    return {
        **auroc_interval(labels, scores, patients).as_dict(),
        "wordings": len(columns),
        "worst": each[worst],
        "worst wording": scored.texts[columns[worst]],
        "mean within folds": float(np.mean(within)),
    }


def _measure_shuffled(scored: Scored, sick: NDArray[np.bool_], seed: int) -> dict[str, Any]:
    """Score every image with a prompt drawn from plain and negated ones alike, as if it were "pneumonia".

    A model that judges the image alone would keep its AUROC; one that reads the prompt falls to 0.5.
    """
    rng = np.random.default_rng(seed)
    pairs = np.stack([scored.columns("pneumonia"), scored.columns("no pneumonia")])
    count = len(sick)
    values = []
    for _ in range(SHUFFLES):
        drawn = pairs[rng.integers(2, size=count), rng.integers(pairs.shape[1], size=count)]
        scores = scored.scores[np.arange(count), drawn]
        values.append(auroc_interval(sick, scores, scored.patients, draws=1).value)
    low, high = np.quantile(values, [0.025, 0.975])
    return {"value": float(np.mean(values)), "low": float(low), "high": float(high), "shuffles": SHUFFLES}
