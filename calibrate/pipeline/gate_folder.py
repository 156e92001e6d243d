"""The folder of a build's gate reports, ``OUTPUT.gate``: replaced by the next build, and nobody else's."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from promptray.runtime.disk import write_new
from promptray.runtime.errors import BuildError

#: Lists what was written, so that only that is ever removed.
MARK = "promptray-gate.json"
_REPORT = re.compile(r"(head-[\w-]+|text)\.(json|html|txt)")


class _Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema: Literal["promptray-gate-folder"]
    files: list[str]


class GateFolder:
    """The folder beside an output, found usable before the long work.

    Parameters
    ----------
    output : Path
        The bundle to be made.

    Raises
    ------
    BuildError
        ``output.exists`` where something else has that name; ``output.unwritable``.
    """

    def __init__(self, output: Path) -> None:
        self._path = output.with_name(f"{output.name}.gate")
        with self._system_errors():
            if self._written() is not None:
                os.rmdir(tempfile.mkdtemp(prefix=".promptray.", dir=self._path))

    @property
    def name(self) -> str:
        """Base name, for messages."""
        return self._path.name

    def replace(self, files: Mapping[str, bytes]) -> None:
        """Write reports in the place of those of an earlier build; all else in the folder stays.

        Raises
        ------
        BuildError
            As the constructor.
        """
        with self._system_errors():
            for name in self._written() or []:
                self._remove(name)
            self._path.mkdir(exist_ok=True)
            mark = _Mark("promptray-gate-folder", sorted(files))
            for name, content in {MARK: msgspec.json.encode(mark), **files}.items():
                write_new(self._path / name, content)

    def _written(self) -> list[str] | None:
        """Return what an earlier build wrote, the list last; None where there is no folder."""
        try:
            facts = self._path.lstat()
        except FileNotFoundError:
            return None
        if not stat.S_ISDIR(facts.st_mode):  # a link is none, wherever it leads
            raise self._not_ours("no folder")
        with os.scandir(self._path) as found:
            if not any(found):
                return []
        mark = self._path / MARK
        try:
            if not stat.S_ISREG(mark.lstat().st_mode):
                raise self._not_ours(f"{MARK} is no file")
            names = msgspec.json.decode(mark.read_bytes(), type=_Mark).files
        except (FileNotFoundError, msgspec.DecodeError):  # of which a ValidationError is one
            raise self._not_ours(f"files that no list {MARK} names") from None
        if not all(_REPORT.fullmatch(name) for name in names):
            raise self._not_ours(f"a list {MARK} with other names than those of reports")
        return [*names, MARK]

    def _remove(self, name: str) -> None:
        path = self._path / name
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(path.lstat().st_mode):
                raise self._not_ours(f"{name} is no file")
            path.unlink()

    @contextlib.contextmanager
    def _system_errors(self) -> Iterator[None]:
        try:
            yield
        except FileExistsError:
            raise self._not_ours("a file with the name of a report") from None
        except OSError as error:
            raise BuildError(
                "output.unwritable",
                f"the reports of the gates cannot be written: {error.strerror}",
                artefact=self.name,
                cure="make room or give the right to write there, or choose another output; "
                "finished stages are kept",
            ) from error

    def _not_ours(self, found: str) -> BuildError:
        return BuildError(
            "output.exists",
            "what has the name of the gates' folder of reports was not written by an earlier build",
            artefact=self.name,
            expected="nothing, an empty folder, or the reports of an earlier build",
            found=found,
            cure="move it away, or choose another output",
        )
