"""A build's folders of reports, ``OUTPUT.gate`` and ``OUTPUT.search``: replaced by the next build only."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from promptray.runtime.disk import write_new
from promptray.runtime.errors import BuildError

#: Lists what was written, so that only that is ever removed.
MARK = "promptray-gate.list"
_HEADER = "Reports of promptray build, which removes these files when it writes new ones:"
_REPORT = re.compile(r"((openvino-)?head-[\w-]+|text|search)\.(json|html|txt)")


class GateFolder:
    """The folder beside an output, found usable before the long work.

    Parameters
    ----------
    output : Path
        The bundle to be made.
    of : {"gate", "search"}, optional
        Whose reports.

    Raises
    ------
    BuildError
        ``output.exists`` where something else has that name; ``output.unwritable``.
    """

    def __init__(self, output: Path, of: Literal["gate", "search"] = "gate") -> None:
        self._path, self._of = output.with_name(f"{output.name}.{of}"), of
        with self._system_errors():
            if self._written() is not None:
                os.rmdir(tempfile.mkdtemp(prefix=".promptray.", dir=self._path))

    @property
    def name(self) -> str:
        """Base name, for messages."""
        return self._path.name

    def clear(self) -> None:
        """Remove the reports of an earlier build: beside one that fails they would speak of another model.

        Raises
        ------
        BuildError
            As the constructor.
        """
        with self._system_errors():
            for name in self._written() or []:
                self._remove(name)

    def replace(self, files: Mapping[str, bytes]) -> None:
        """Write reports in the place of those of an earlier build; all else in the folder stays.

        Raises
        ------
        BuildError
            As the constructor.
        """
        self.clear()
        with self._system_errors():
            self._path.mkdir(exist_ok=True)
            mark = "\n".join([_HEADER, *sorted(files)]) + "\n"
            for name, content in {MARK: mark.encode(), **files}.items():
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
            header, *names = mark.read_text(encoding="utf-8").splitlines() or [""]
        except (FileNotFoundError, UnicodeDecodeError):
            raise self._not_ours(f"files that no list {MARK} names") from None
        if header != _HEADER or not all(_REPORT.fullmatch(name) for name in names):
            raise self._not_ours(f"a list {MARK} of other things than reports")
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
                f"the reports of the {self._of} cannot be written: {error.strerror}",
                artefact=self.name,
                cure="make room or give the right to write there, or choose another output; "
                "finished stages are kept",
            ) from error

    def _not_ours(self, found: str) -> BuildError:
        return BuildError(
            "output.exists",
            f"what has the name of the folder of the {self._of} was not written by an earlier build",
            artefact=self.name,
            expected="nothing, an empty folder, or the reports of an earlier build",
            found=found,
            cure="move it away, or choose another output",
        )
