"""Cross-validation by patient: what is fitted on some patients is measured on others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.probability.sample import Sample

FOLDS = 5


def patient_folds(
    sample: Sample, *, folds: int = FOLDS, seed: int = 0
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield (rows to fit on, rows to measure on); no patient is in both, and the finding is in every part.

    Patients who have the finding in some image, and those who never have it, are shuffled and dealt like
    cards. The sample needs several times as many patients of both kinds as there are folds
    (:func:`promptray.calibrate.probability.sample.require`).
    """
    rng = np.random.default_rng(seed)
    everyone = np.arange(sample.patients.max() + 1)
    ever = np.isin(everyone, sample.patients[sample.truth])
    dealt = np.concatenate([rng.permutation(everyone[ever]), rng.permutation(everyone[~ever])])
    fold_of = np.empty(len(everyone), np.int64)
    fold_of[dealt] = np.arange(len(everyone)) % folds
    own = fold_of[sample.patients]
    for number in range(folds):
        yield np.flatnonzero(own != number), np.flatnonzero(own == number)
