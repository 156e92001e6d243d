"""What a stage is measured by, on the test part: each number in every draw, so that stages can be paired.

All stages are drawn alike: a draw of units is one and the same for each of them, and so the difference of two
stages has an interval of its own, which is narrower than theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.auroc import auroc
from promptray.calibrate.bootstrap import mean_draws, patient_draws
from promptray.calibrate.kappa import confusion, quadratic_weighted_kappa
from promptray.calibrate.ranking import Ranking, once

Floats = NDArray[np.float64]

#: Units with a class, and without it, that its own numbers need to have an interval, as in ``evaluate``.
LEAST_CLASS_UNITS = 5
_OWN = ("AUROC", "F1", "accuracy", "sensitivity", "specificity")


@dataclass(frozen=True)
class Drawn:
    """A number of all test images, and of each draw; NaN in a draw that does not define it."""

    value: float
    draws: Floats


@dataclass(frozen=True)
class Measured:
    """One stage on the test part.

    Attributes
    ----------
    numbers : dict of str to Drawn
        ``accuracy``, ``balanced accuracy``, ``macro F1``, ``macro AUROC``; ``quadratic kappa`` of a scale;
        ``AUROC KEY`` and ``F1 KEY`` of each class; ``AUROC``, ``accuracy``, ``sensitivity`` and
        ``specificity`` of each group.
    confusion : list of list of int
        Rows: labels; columns: predictions.
    few : dict of str to int
        Classes and groups that fewer than `LEAST_CLASS_UNITS` units have, or lack, with that number: their
        own numbers have no draws, since an interval over so few is narrow and wrong.
    """

    numbers: dict[str, Drawn]
    confusion: list[list[int]]
    few: dict[str, int]


def measure(
    keys: Sequence[str],
    classes: NDArray[np.int64],
    shares: Floats,
    units: NDArray[np.int64],
    *,
    ordinal: bool,
    groups: Mapping[str, Sequence[str]],
    draws: int,
    seed: int,
) -> Measured:
    """Measure predictions: the class of the greatest share is what is predicted.

    A class that a draw does not hold is left out of that draw's means.

    Parameters
    ----------
    keys : sequence of str
        The K classes, in the order of the scale where they are one.
    classes : ndarray of int, shape (n,)
    shares : ndarray of float64, shape (n, K)
        The bundle's softmax.
    units : ndarray of int, shape (n,)
        What is drawn.
    ordinal : bool
    groups : mapping of str to sequence of str
        Unions of classes.
    draws, seed : int
    """
    test = _Test(list(keys), classes, shares, ordinal, groups)
    blocks = [test.numbers(weights) for weights in patient_draws(units, draws=draws, seed=seed)]
    whole = test.numbers(once(len(classes)))
    few = {
        owner: found for owner in test.owners() if (found := test.fewest(owner, units)) < LEAST_CLASS_UNITS
    }
    without = {f"{what} {owner}" for what in _OWN for owner in few}
    numbers = {}
    for name, value in whole.items():
        if not np.isnan(value[0]):
            drawn = [] if name in without else [block[name] for block in blocks]
            numbers[name] = Drawn(float(value[0]), np.concatenate([np.empty(0), *drawn]))
    return Measured(numbers, test.table(once(len(classes)))[:, :, 0].astype(int).tolist(), few)


def difference(later: Measured, earlier: Measured, name: str) -> Drawn | None:
    """Return what a later stage has more of a number than an earlier one, draw by draw."""
    if name not in later.numbers or name not in earlier.numbers:
        return None
    first, second = later.numbers[name], earlier.numbers[name]
    return Drawn(first.value - second.value, first.draws - second.draws)


class _Test:
    """The test part as one stage sees it."""

    def __init__(
        self,
        keys: list[str],
        classes: NDArray[np.int64],
        shares: Floats,
        ordinal: bool,
        groups: Mapping[str, Sequence[str]],
    ) -> None:
        self.keys, self.classes, self.ordinal = keys, classes, ordinal
        self.predicted = np.argmax(shares, axis=1)
        self.rankings = [Ranking(shares[:, number]) for number in range(len(keys))]
        self.groups = {name: [keys.index(key) for key in members] for name, members in groups.items()}
        self.group_rankings = {name: Ranking(shares[:, of].sum(1)) for name, of in self.groups.items()}

    def owners(self) -> dict[str, list[int]]:
        """Return the classes, and the groups, that have numbers of their own: name -> its classes."""
        groups = {f"{name} (group)": of for name, of in self.groups.items()}
        return {key: [number] for number, key in enumerate(self.keys)} | groups

    def fewest(self, owner: str, units: NDArray[np.int64]) -> int:
        """Return how many units have one of its classes, or how many have another, whichever is less."""
        of = np.isin(self.classes, self.owners()[owner])
        return min(len(np.unique(units[of])), len(np.unique(units[~of])))

    def table(self, weights: NDArray[np.floating]) -> Floats:
        """Return the confusion (K, K, d)."""
        return confusion(self.classes, self.predicted, len(self.keys), weights)

    def numbers(self, weights: NDArray[np.floating]) -> dict[str, Floats]:
        """Return every number in each of d draws, shape (d,)."""
        table = self.table(weights)
        hits, true, said = np.einsum("kkd->kd", table), table.sum(1), table.sum(0)
        recall = _share(hits, true)
        f1 = np.where(true > 0, _share(2 * hits, true + said), np.nan)
        ranks = [
            auroc(self.classes == number, ranking, weights) for number, ranking in enumerate(self.rankings)
        ]
        found = {
            "accuracy": _share(hits.sum(0), true.sum(0)),
            "balanced accuracy": mean_draws([[row] for row in recall]),
            "macro F1": mean_draws([[row] for row in f1]),
            "macro AUROC": mean_draws([[row] for row in ranks]),
        }
        if self.ordinal:
            found["quadratic kappa"] = quadratic_weighted_kappa(table)
        for key, rank, row in zip(self.keys, ranks, f1, strict=True):
            found[f"AUROC {key}"], found[f"F1 {key}"] = rank, row
        for name, of in self.groups.items():
            found.update(self._group(name, of, table, weights))
        return found

    def _group(
        self, name: str, of: list[int], table: Floats, weights: NDArray[np.floating]
    ) -> dict[str, Floats]:
        """Return how well a union of classes is told from the others."""
        others = [number for number in range(len(self.keys)) if number not in of]
        yes, no = table[of], table[others]
        right_yes, right_no = yes[:, of].sum((0, 1)), no[:, others].sum((0, 1))
        return {
            f"AUROC {name} (group)": auroc(np.isin(self.classes, of), self.group_rankings[name], weights),
            f"accuracy {name} (group)": _share(right_yes + right_no, table.sum((0, 1))),
            f"sensitivity {name} (group)": _share(right_yes, yes.sum((0, 1))),
            f"specificity {name} (group)": _share(right_no, no.sum((0, 1))),
        }


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)
