"""The output folder of one adaptation: who may write there, and whether what is there is of the same run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from promptray.calibrate.adapt.whole import remove_partial, replace_whole
from promptray.runtime.errors import PromptRayError

REPORT, PAGE, PICTURE = "report.json", "report.md", "report.png"
SPLITS, FEATURES = "splits.csv", "features.safetensors"
_RUN, _LOCK = "run.json", ".lock"


class RunFolder:
    """A folder that a run writes to, and that the same run may go on in after a kill.

    Parameters
    ----------
    path : Path
        Made if it is not there.

    Raises
    ------
    PromptRayError
        ``output.exists`` if it holds a finished report, or files that are of no run; ``output.unwritable``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            there = {entry.name for entry in path.iterdir()}
        except OSError as error:
            raise PromptRayError(
                "output.unwritable",
                f"the folder cannot be made: {error.strerror}",
                artefact=path.name,
                cure="choose another folder with -o",
            ) from None
        if REPORT in there:
            raise self._exists("the folder holds a finished adaptation", REPORT)
        foreign = sorted(there - {_LOCK})
        if foreign and _RUN not in there and not _only_partial(foreign):
            raise self._exists("the folder is not empty, and no adaptation began in it", foreign[0])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out, and clear away what killed ones left.

        Raises
        ------
        PromptRayError
            ``adapt.state`` if another run is at work.
        """
        try:
            with FileLock(self.path / _LOCK, timeout=0):
                remove_partial(self.path)
                yield
        except Timeout:
            raise PromptRayError(
                "adapt.state",
                "another run is at work in this folder",
                artefact=self.path.name,
                cure="wait for it, or choose another folder with -o",
            ) from None

    def claim(self, facts: Mapping[str, Any]) -> bool:
        """Begin a run, or go on with one that rests on the same facts; tell whether it goes on.

        Raises
        ------
        PromptRayError
            ``adapt.state`` if what is there rests on others: images, labels, recipe or options.
        """
        file = self.path / _RUN
        try:
            before = json.loads(file.read_bytes()) if file.exists() else None
        except ValueError:
            before = {}
        now = json.loads(json.dumps(facts))
        if before is None:
            replace_whole(file, json.dumps(now, indent=2).encode() + b"\n")
            return False
        if before != now:
            other = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
            raise PromptRayError(
                "adapt.state",
                "the folder holds an adaptation that began with something else",
                artefact=self.path.name,
                found=f"other {', '.join(other)}",
                cure="choose another folder with -o; features.safetensors may be copied there",
            )
        return True

    def _exists(self, what: str, found: str) -> PromptRayError:
        return PromptRayError(
            "output.exists", what, artefact=self.path.name, found=found, cure="choose another folder with -o"
        )


def _only_partial(names: list[str]) -> bool:
    """Tell whether there is nothing but what a kill at the very beginning leaves, or copied vectors."""
    return all(name.startswith(".") or name == FEATURES for name in names)
