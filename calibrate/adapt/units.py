"""What must stay whole: images of one patient, exam or group, frames and copies of one file, are one unit."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def units_of(count: int, ids: Mapping[str, NDArray[np.int64]], files: Sequence[str]) -> NDArray[np.int64]:
    """Join images that have anything in common, however far round, and number what results.

    Parameters
    ----------
    count : int
        Images.
    ids : mapping of str to ndarray of int, shape (count,)
        Numbers of patients, exams, groups.
    files : sequence of str
        Hash of each image's file: equal ones are copies of it, or its frames.

    Returns
    -------
    ndarray of int64, shape (count,)
        Numbers from 0, in the order in which units first occur.
    """
    parent = list(range(count))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    same_file = np.unique(np.asarray(files, dtype=str), return_inverse=True)[1].reshape(-1)
    for numbers in (*ids.values(), same_file):
        first: dict[int, int] = {}
        for row, number in enumerate(numbers.tolist()):
            # The lower row becomes the root, so that roots stand in the order of the rows.
            low, high = sorted((root(first.setdefault(number, row)), root(row)))
            parent[high] = low
    roots = [root(row) for row in range(count)]
    return np.unique(roots, return_inverse=True)[1].reshape(-1).astype(np.int64)


def rows_of_same(marks: Iterable[Hashable]) -> list[list[int]]:
    """Return the rows of every mark that is there more than once."""
    rows: dict[Hashable, list[int]] = {}
    for row, mark in enumerate(marks):
        rows.setdefault(mark, []).append(row)
    return [same for same in rows.values() if len(same) > 1]
