"""From a table and a folder to images that are hashed, joined to units and divided into parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.adapt.cases import Cases
from promptray.calibrate.adapt.progress import Progress, each_percent
from promptray.calibrate.adapt.report import Division, Part, PartName
from promptray.calibrate.adapt.split import divide, require_enough, require_separate, same_pictures
from promptray.calibrate.adapt.units import units_of
from promptray.calibrate.score_images import Missing, locate
from promptray.calibrate.tables.csv_file import TableError
from promptray.calibrate.tables.image_folder import ImageFolder
from promptray.calibrate.tables.labels import LabelledImage
from promptray.runtime.disk import hash_file

Level = Literal["patient", "group", "exam", "image"]
How = Literal["stated", "stated, val taken from train", "made"]

_LISTED = 3


@dataclass(frozen=True)
class Data:
    """Images that can be read, and the part of each.

    Attributes
    ----------
    cases : Cases
        n images, each picture once.
    files : list of str
        Hash of the file of each.
    units : ndarray of int64, shape (n,)
        What is kept whole.
    parts : list of str
    how : str
        How they were divided.
    seed : int
    left_out : dict of str to str
        Images that are not there or cannot be read, by their place, with the code.
    copies : list of list of str
        Places of images that are one picture; the first of each, whose row states most, is among the cases,
        the others are not.
    """

    cases: Cases
    files: list[str]
    units: NDArray[np.int64]
    parts: list[str]
    how: How
    seed: int
    left_out: dict[str, str]
    copies: list[list[str]]

    @property
    def pictures(self) -> list[str]:
        """A mark of each image: the hash of its file and, where its row states one, the frame."""
        return [
            f"{file}#{image.frame or ''}" for file, image in zip(self.files, self.cases.images, strict=True)
        ]

    def rows(self, part: str) -> NDArray[np.intp]:
        """Return the rows of a part."""
        return np.flatnonzero(np.array(self.parts) == part)

    def without(self, refused: Mapping[int, str], missing: Missing) -> Data:
        """Return the images that could be read; refuse, or list, the others.

        Parameters
        ----------
        refused : mapping of int to str
            Row -> code.
        missing : {"error", "count"}

        Raises
        ------
        TableError
            ``adapt.images``.
        """
        if not refused:
            return self
        gone = {self.cases.images[row].place: code for row, code in refused.items()}
        require_readable(gone, len(self.parts), self.cases.labels.table, missing)
        kept = [row for row in range(len(self.parts)) if row not in refused]
        return replace(
            self,
            cases=self.cases.select(kept),
            files=[self.files[row] for row in kept],
            units=self.units[kept],
            parts=[self.parts[row] for row in kept],
            left_out={**self.left_out, **gone},
        )

    def division(self) -> Division:
        """Return what the report says of the parts."""
        level, units = level_of(self.cases)
        return Division(
            how=self.how,
            seed=None if self.how == "stated" else self.seed,
            units=units,
            level=level,
            columns=self.cases.columns,
            parts=[self._part(part) for part in get_args(PartName) if part in self.parts],
            copies=self.copies,
        )

    def _part(self, name: PartName) -> Part:
        rows = self.rows(name)
        counts = np.bincount(self.cases.classes[rows], minlength=len(self.cases.keys))
        return Part(
            name=name,
            images=len(rows),
            units=len(np.unique(self.units[rows])),
            classes=dict(zip(self.cases.keys, counts.tolist(), strict=True)),
        )


def level_of(cases: Cases) -> tuple[Level, str]:
    """Return what images are independent by, and its name for people."""
    columns = cases.columns
    if "patient" in columns:
        return "patient", "patients joined by groups" if "group" in columns else "patients"
    if "group" in columns:
        return "group", f"groups ({columns['group']})"
    return ("exam", "exams") if "exam" in columns else ("image", "files")


def prepare(
    cases: Cases,
    folder: ImageFolder,
    *,
    test: float,
    val: float,
    seed: int,
    missing: Missing,
    progress: Progress,
) -> Data:
    """Find and hash the images, join those that belong together, and divide them.

    Parameters
    ----------
    cases : Cases
    folder : ImageFolder
    test, val : float
        Shares of the images, where the table does not divide them; `val` of the train part, where the table
        names train and test alone. No `val`: no validation part.
    seed : int
    missing : {"error", "count"}
        Whether an image that is not there or cannot be read is an error, or left out and listed.
    progress : callable

    Raises
    ------
    TableError
        ``table.image``, ``adapt.images``, ``adapt.split``, ``adapt.too-few``.
    """
    cases, files, gone = _hashed(cases, folder, missing, progress)
    require_separate(cases, files)
    units = units_of(len(files), cases.ids, files)  # of all rows: a copy may join two patients
    same = [sorted(rows, key=lambda row: -_stated(cases.images[row])) for rows in same_pictures(cases, files)]
    copies = [[cases.images[row].place for row in rows] for rows in same]
    again = {row for rows in same for row in rows[1:]}
    once = [row for row in range(len(files)) if row not in again]
    cases, files, units = cases.select(once), [files[row] for row in once], units[once]
    parts, how = _parts(cases, units, test=test, val=val, seed=seed)
    require_enough(cases, parts, validated=val > 0)
    return Data(cases, files, units, parts, how, seed, gone, copies)


def _stated(image: LabelledImage) -> int:
    """Count what a row says of its picture: of copies the one that says most is kept."""
    return sum(fact is not None for fact in (image.modality, image.frame))


def _hashed(
    cases: Cases, folder: ImageFolder, missing: Missing, progress: Progress
) -> tuple[Cases, list[str], dict[str, str]]:
    """Return the images that are there, the hash of the file of each, and those that are not."""
    cases = replace(cases, labels=locate(cases.labels, folder, missing))
    digests: dict[int, str] = {}
    for row, image in enumerate(cases.images):
        each_percent(progress, "read", "hashed", row + 1, len(cases.images))
        with suppress(KeyError, OSError):
            digests[row] = hash_file(folder.files[image.file])[0]
    gone = {image.place: "image.not-found" for row, image in enumerate(cases.images) if row not in digests}
    require_readable(gone, len(cases.images), cases.labels.table, missing)
    return cases.select(list(digests)), list(digests.values()), gone


def _parts(
    cases: Cases, units: NDArray[np.int64], *, test: float, val: float, seed: int
) -> tuple[list[str], How]:
    """Return the part of each image, as the table states it or as it is made here."""
    if cases.parts is None:
        shares = {"train": 1 - test - val, "val": val, "test": test}
        return divide(units, cases.classes, len(cases.keys), shares, seed), "made"
    parts = list(cases.parts)
    train = [row for row, part in enumerate(parts) if part == "train"]
    if not val or "val" in parts or not train:
        return parts, "stated"
    own = np.unique(units[train], return_inverse=True)[1].reshape(-1)
    shares = {"train": 1 - val, "val": val}
    taken = divide(own, cases.classes[train], len(cases.keys), shares, seed)
    for row, part in zip(train, taken, strict=True):
        parts[row] = part
    return parts, "stated, val taken from train"


def require_readable(refused: Mapping[str, str], total: int, table: str, missing: Missing) -> None:
    """Refuse images that cannot be read, unless they are to be counted; all of them never pass.

    Raises
    ------
    TableError
        ``adapt.images``.
    """
    if not refused or (missing == "count" and len(refused) < total):
        return
    undeclared = "image.modality-undeclared" in refused.values()
    first = [f"{place} ({code})" for place, code in list(refused.items())[:_LISTED]]
    raise TableError(
        "adapt.images",
        f"images that {table} names cannot be used",
        artefact=f"{table}, {', '.join(first)}" + (" ..." if len(refused) > _LISTED else ""),
        expected=f"{total} images",
        found=f"{len(refused)} of them are refused",
        cure="say --modality MODALITY, or add a column modality to the table"
        if undeclared
        else "`promptray score` says more of each; --missing count leaves them out and lists them",
    )


def notes_of(data: Data, stages: Sequence[str]) -> list[str]:
    """Return what a reader must know of the division before believing a number."""
    level, _ = level_of(data.cases)
    columns = data.cases.columns
    notes = [f"Images are kept together by the column {columns[kind]} ({kind})." for kind in columns]
    if level == "image":
        notes.append(
            "No column says whose image it is: images of one patient may be in train and in test, so every "
            "number here is at the level of images and optimistic, and its interval too narrow. Name the "
            "column by --patient."
        )
    elif level == "exam":
        notes.append(
            "Exams are kept whole, patients are not known: one with several exams may be in train and in "
            "test, so numbers may be optimistic. Name the column by --patient."
        )
    elif level == "group":
        notes.append("No column says whose image it is, so whether a patient is in two groups is not known.")
    notes += [
        f"The column {column} is not used, though by its name it may number people, and it joins rows: say "
        "--patient, --exam or --group if images that share a value belong together."
        for column in data.cases.suspected
    ]
    if data.copies:
        notes.append(f"Pictures that several rows are about: {len(data.copies)}. Each counts once.")
    division = data.division()
    for part in division.parts:
        absent = [key for key, count in part.classes.items() if not count]
        if absent:
            notes.append(f"The part {part.name} holds no image of {', '.join(absent)}.")
    if "fine-tune" not in stages and "val" in data.parts:
        notes.append("The part val is not used: only fine-tuning needs it.")
    return notes
