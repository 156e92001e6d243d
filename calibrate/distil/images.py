"""The images a student learns from, and which of them only watch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.adapt.split import divide
from promptray.calibrate.adapt.units import units_of
from promptray.runtime.bundle.calibration_set import CalibrationSet
from promptray.runtime.errors import BuildError

#: Fewer images than this are warned of: a student of a few hundred learns those and little of others.
FEW = 1000
_LEAST = 8


@dataclass(frozen=True, eq=False)
class DistilImages:
    """Pictures as the network sees them, with what is known of them.

    Attributes
    ----------
    pictures : uint8 or float32 array, (n, height, width[, 3])
        Levels 0..255, from `promptray.calibrate.quantise.calibration_images`.
    facts : CalibrationSet
        Count, hash and source: what a bundle's provenance says of them.
    hashes : sequence of str
        One for each picture; equal ones are copies, which stay on one side.
    patients : array, (n,), optional
        Images of one patient stay on one side.
    reports : sequence of str, optional
        What was said of each image; never stored.
    labels : mapping of str to array (n,), optional
        By finding key: 1, 0 or NaN where nothing is known.

    Raises
    ------
    BuildError
        ``distil.images`` for fewer than 8, or facts that are not one for each.
    """

    pictures: NDArray[Any]
    facts: CalibrationSet
    hashes: Sequence[str]
    patients: NDArray[Any] | None = None
    reports: Sequence[str] | None = None
    labels: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what does not belong together."""
        count = len(self.pictures)
        if count < _LEAST:
            raise _refused("there are too few images to learn from", f"at least {_LEAST}", str(count))
        stated = {"hashes": self.hashes, "patients": self.patients, "reports": self.reports, **self.labels}
        for name, values in stated.items():
            if values is not None and len(values) != count:
                raise _refused(f"{name} are not one for each image", str(count), str(len(values)))

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes the set a poor one."""
        found = []
        different = len(set(self.hashes))
        if different < FEW:
            found.append(
                f"{different} different images are few for a student: {FEW} or more are wanted, of the kind "
                "that it will see; the gate says what it is worth"
            )
        if self.patients is None:
            found.append("no patients are known: images of one may be in training and in validation")
        return tuple(found)

    def divide(self, validation: float, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the rows that are learned from and those that watch; no patient is in both.

        Raises
        ------
        BuildError
            ``distil.images`` where one part would have less than two.
        """
        ids = {} if self.patients is None else {"patient": _numbers(self.patients)}
        units = units_of(len(self), ids, self.hashes)
        shares = {"train": 1 - validation, "val": validation}
        parts = np.array(divide(units, np.zeros(len(self), np.int64), 1, shares, seed))
        train, val = np.flatnonzero(parts == "train"), np.flatnonzero(parts == "val")
        if min(len(train), len(val)) < 2:
            found = f"{len(train)} and {len(val)} images of {units.max() + 1} patients"
            raise _refused(
                "there is nothing to learn from, or to watch with", "two images in each part", found
            )
        return train, val


def _numbers(ids: NDArray[Any]) -> NDArray[np.int64]:
    return np.unique(np.asarray(ids, dtype=str), return_inverse=True)[1].reshape(-1).astype(np.int64)


def _refused(what: str, expected: str, found: str) -> BuildError:
    return BuildError(
        "distil.images", what, expected=expected, found=found, cure="give more images, of more patients"
    )
