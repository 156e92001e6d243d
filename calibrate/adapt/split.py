"""Divide images into train, val and test so that nothing that belongs together is on both sides.

Images of one patient resemble each other. A model that has seen one of them does better on the others than on
a stranger's, so a division by single images measures too much (the density study's numbers are such:
arXiv 2506.13964 divides images, and the four views of an exam fall on both sides).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.adapt.cases import Cases
from promptray.calibrate.adapt.units import rows_of_same
from promptray.calibrate.tables.csv_file import TableError

PARTS = ("train", "val", "test")
#: Images that each class must have in a part.
LEAST: Mapping[str, int] = {"train": 3, "val": 0, "test": 1}
_LISTED = 5


def divide(
    units: NDArray[np.int64],
    classes: NDArray[np.int64],
    count: int,
    shares: Mapping[str, float],
    seed: int,
) -> list[str]:
    """Divide units into parts, each class in the wanted shares as far as whole units allow.

    Greedy, largest units first, from many seeded orders; the best division is kept: the one in which the
    fewest classes fall short of :data:`LEAST`, then the one nearest to the shares.

    Parameters
    ----------
    units, classes : ndarray of int, shape (n,)
    count : int
        Number of classes.
    shares : mapping of str to float
        Part -> wanted share of the images; they add up to 1.
    seed : int

    Returns
    -------
    list of str
        The part of each image.
    """
    parts = [part for part in PARTS if shares.get(part, 0) > 0]
    table = np.zeros((int(units.max()) + 1, count))
    np.add.at(table, (units, classes), 1)
    total = np.maximum(table.sum(0), 1)
    wanted = np.array([[shares[part]] for part in parts]) * table.sum(0)
    least = np.array([[LEAST[part]] for part in parts])
    rng = np.random.default_rng(seed)
    best: tuple[float, float] | None = None
    chosen = np.zeros(len(table), np.intp)
    for _ in range(int(np.clip(10_000 // len(table), 4, 200))):
        order = np.argsort(-table.sum(1) * rng.uniform(0.5, 1.5, len(table)), kind="stable")
        place, counts = _greedy(table, wanted, total, order)
        short = np.maximum(np.minimum(least, table.sum(0)) - counts, 0).sum()
        cost = float(short), float((((counts - wanted) ** 2) / total).sum())
        if best is None or cost < best:
            best, chosen = cost, place
    return [parts[chosen[unit]] for unit in units]


def _greedy(
    table: NDArray[np.float64],
    wanted: NDArray[np.float64],
    total: NDArray[np.float64],
    order: NDArray[np.intp],
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Give each unit to the part that comes nearest to its wanted counts; return places and counts."""
    counts = np.zeros_like(wanted)
    place = np.zeros(len(table), np.intp)
    for unit in order:
        own = table[unit]
        # What the squared distance of each part to its wanted counts gains by taking the unit.
        gain = (own * (2 * (counts - wanted) + own) / total).sum(1)
        place[unit] = np.argmin(gain)
        counts[place[unit]] += own
    return place, counts


def require_separate(cases: Cases, files: Sequence[str]) -> None:
    """Refuse a stated division with something in two parts, by line numbers; and a picture of two kinds.

    Parameters
    ----------
    cases : Cases
    files : sequence of str
        Hash of each image's file.

    Raises
    ------
    TableError
        ``adapt.split``.
    """
    for rows in same_pictures(cases, files):
        if len({int(cases.classes[row]) for row in rows}) > 1:
            raise _refused(
                cases, "one picture has two labels", rows, "correct the labels, or delete the rows"
            )
        stated = [cases.images[row].modality for row in rows]
        if len({modality.upper() for modality in stated if modality}) > 1:  # the door takes mg for MG
            raise _refused(cases, "one picture has two modalities", rows, "correct the column modality")
    if cases.parts is None:
        return
    for kind, numbers in cases.ids.items():
        crossing = _crossing(rows_of_same(numbers.tolist()), cases.parts)
        if crossing:
            what = f"the same {kind} is in two parts ({len(crossing)} of them are)"
            raise _refused(cases, what, crossing[0], f"keep each {kind} in one part, or leave --split out")
    crossing = _crossing(rows_of_same(files), cases.parts)
    if crossing:
        what = f"the same file, or a copy of it, is in two parts ({len(crossing)} of them are)"
        raise _refused(cases, what, crossing[0], "keep its frames in one part, and delete copies")


def same_pictures(cases: Cases, files: Sequence[str]) -> list[list[int]]:
    """Return the rows of every picture that several rows are about.

    A row without a frame means the first: the door lets it in only where a file has one.
    """
    frames = [image.frame or 1 for image in cases.images]
    return rows_of_same(zip(files, frames, strict=True))


def require_enough(cases: Cases, parts: Sequence[str], *, validated: bool) -> None:
    """Refuse a division in which a part lacks a class, or has too little of it.

    Parameters
    ----------
    cases : Cases
    parts : sequence of str
    validated : bool
        Whether there must be a validation part.

    Raises
    ------
    TableError
        ``adapt.too-few``, with every class that falls short.
    """
    of = np.array(parts)
    short = [
        f"{key}: {found} in {part}, at least {LEAST[part]}"
        for part in PARTS
        for number, key in enumerate(cases.keys)
        if (found := int(((of == part) & (cases.classes == number)).sum())) < LEAST[part]
    ]
    if validated and "val" not in parts:
        short.append("no image in val, which fine-tuning stops by")
    if short:
        raise TableError(
            "adapt.too-few",
            "a part has too few images",
            artefact=cases.labels.table,
            expected=", ".join(f"{least} of each class in {part}" for part, least in LEAST.items() if least),
            found="; ".join(short[:_LISTED]) + (" ..." if len(short) > _LISTED else ""),
            cure="label more images, from more patients; or leave the class out of recipe and table",
        )


def _crossing(together: Sequence[list[int]], parts: Sequence[str]) -> list[list[int]]:
    return [rows for rows in together if len({parts[row] for row in rows}) > 1]


def _refused(cases: Cases, what: str, rows: Sequence[int], cure: str) -> TableError:
    lines = [cases.lines[row] for row in rows]
    shown = ", ".join(map(str, lines[:_LISTED])) + (" ..." if len(lines) > _LISTED else "")
    return TableError("adapt.split", what, artefact=f"{cases.labels.table}, lines {shown}", cure=cure)
