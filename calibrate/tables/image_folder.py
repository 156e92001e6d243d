"""Find the files that a table names, in a folder with any sub-folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from promptray.calibrate.tables.csv_file import TableError


class ImageFolder:
    """The files of a folder by their path below it, or by their name alone where only one has that name.

    Parameters
    ----------
    root : Path
        The folder. It is listed once, with the folders that links in it lead to.

    Raises
    ------
    TableError
        ``table.not-found`` if it is no folder, or holds one that cannot be listed.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise TableError(
                "table.not-found",
                "the folder of images is not there",
                artefact=root.name,
                cure="check --images",
            )
        self.name = root.resolve().name
        self.files = {path.relative_to(root).as_posix(): path for path in sorted(_walk(root))}
        self._by_name: dict[str, list[str]] = {}
        for relative in self.files:
            self._by_name.setdefault(PurePosixPath(relative).name, []).append(relative)

    def resolve(self, name: str, place: str | None = None) -> str | None:
        """Return the path below the folder of a file named in a table, or None if there is none.

        Parameters
        ----------
        name : str
        place : str, optional
            What an error calls it, for a file's name may be a patient's.

        Raises
        ------
        TableError
            ``table.image`` if the name stands alone and several sub-folders hold it.
        """
        plain = PurePosixPath(name.replace("\\", "/")).as_posix()
        if plain in self.files:
            return plain
        same = self._by_name.get(plain, []) if "/" not in plain else []
        if len(same) > 1:
            raise TableError(
                "table.image",
                "several sub-folders hold a file of this name",
                artefact=place or self.name,
                found=f"{len(same)} files",
                cure="name it in the table with its folder, for example part-1/film.png",
            )
        return same[0] if same else None

    def require(self, places: Mapping[str, str], table: str) -> None:
        """Refuse a table that names files that are not there.

        Parameters
        ----------
        places : mapping of str to str
            File -> where the table names it, ``line 3``.
        table : str
            Its name.

        Raises
        ------
        TableError
            ``table.image`` with their number and the places of the first.
        """
        absent = [place for name, place in places.items() if self.resolve(name, f"{table}, {place}") is None]
        if absent:
            raise TableError(
                "table.image",
                f"{table} names images that are not in the folder",
                artefact=f"{table}, {', '.join(absent[:3])}" + (" ..." if len(absent) > 3 else ""),
                expected=f"{len(places)} files in {self.name}",
                found=f"{len(absent)} of them are absent",
                cure="correct --images or the table; --missing count evaluates the others and counts these",
            )


def _walk(root: Path) -> Iterator[Path]:
    """Yield every file below a folder, each folder once: links may lead round in a circle."""

    def unreadable(error: OSError) -> None:
        raise TableError(
            "table.not-found",
            f"a folder of images, or one in it, cannot be listed: {error.strerror}",
            artefact=root.name,  # a folder within it may be named after a patient
            cure="give this user the right to read it and all folders in it, or take them away",
        )

    entered: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(root, onerror=unreadable, followlinks=True):
        facts = os.stat(folder)
        if (facts.st_dev, facts.st_ino) in entered:
            folders.clear()
            continue
        entered.add((facts.st_dev, facts.st_ino))
        yield from (Path(folder) / name for name in names)
