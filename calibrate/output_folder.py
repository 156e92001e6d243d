"""The folder that a report is written to: claimed before the work begins, and never written over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from promptray.runtime.disk import write_whole
from promptray.runtime.errors import PromptRayError


class OutputFolder:
    """A folder that will hold the named files, and holds none of them yet.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    names : sequence of str
        The files that will be written.

    Raises
    ------
    PromptRayError
        ``output.exists``, ``output.unwritable``.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            there = [name for name in names if (folder / name).exists()]
        except OSError as error:
            raise _unwritable(folder, error) from None
        if there:
            raise PromptRayError(
                "output.exists",
                "the folder holds a report already",
                artefact=folder.name,
                found=", ".join(there),
                cure="choose another folder with -o, or remove the old report",
            )

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write the files in their order, each whole or not at all.

        Raises
        ------
        PromptRayError
            ``output.unwritable``.
        """
        try:
            for name, content in files.items():
                write_whole(self._folder / name, content)
        except OSError as error:
            raise _unwritable(self._folder, error) from None


def _unwritable(folder: Path, error: OSError) -> PromptRayError:
    return PromptRayError(
        "output.unwritable",
        f"the report cannot be written: {error.strerror}",
        artefact=folder.name,
        cure="choose another folder with -o",
    )
