"""The folder that a report is written to: claimed before the work begins, and never written over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from promptray.runtime.bundle.outside import require_outside
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
    option : str
        Of the command line, which named it.

    Raises
    ------
    PromptRayError
        ``output.exists``, ``output.unwritable``, ``output.in-bundle``.
    """

    def __init__(self, folder: Path, names: Sequence[str], option: str = "-o") -> None:
        self._folder, self._option = folder, option
        require_outside(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            there = [name for name in names if (folder / name).exists()]
        except OSError as error:
            raise self._unwritable(error) from None
        if there:
            raise PromptRayError(
                "output.exists",
                "the folder holds a report already",
                artefact=folder.name,
                found=", ".join(there),
                cure=f"choose another folder with {option}, or remove the old report",
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
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> PromptRayError:
        return PromptRayError(
            "output.unwritable",
            f"the report cannot be written: {error.strerror}",
            artefact=self._folder.name,
            cure=f"choose another folder with {self._option}",
        )
