"""The output folder of one adaptation: who may write there, and whether what is there is of the same run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from promptray.calibrate.adapt.whole import remove_partial, replace_whole, writing
from promptray.runtime.errors import PromptRayError

REPORT, PAGE, PICTURE = "report.json", "report.md", "report.png"
SPLITS, FEATURES = "splits.csv", "features.safetensors"
_RUN, _LOCK = "run.json", ".lock"
#: Facts of a run whose values a refusal may show: what the caller said.
OPTIONS = ("columns", "options")


class RunFolder:
    """A folder that a run writes to, and that the same run may go on in after a kill.

    Parameters
    ----------
    path : Path
        Made by :meth:`locked` if it is not there.

    Raises
    ------
    PromptRayError
        ``output.exists`` if it holds a finished report, or files that are of no run; ``output.unwritable``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._require_free()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, keep other runs out of it, and clear away what killed ones left.

        Raises
        ------
        PromptRayError
            ``adapt.state`` if another run is at work, and as when the folder was named.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / _LOCK)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise PromptRayError(
                    "adapt.state",
                    "another run is at work in this folder",
                    artefact=self.path.name,
                    cure="wait for it, or choose another folder with -o",
                ) from None
        try:
            self._require_free()  # another run may have ended here meanwhile
            with writing(self.path):
                remove_partial(self.path)
            yield
        finally:
            lock.release()

    def require_same(self, facts: Mapping[str, Any]) -> None:
        """Refuse to go on with a run that rests on other facts.

        Raises
        ------
        PromptRayError
            ``adapt.state`` if what is there rests on others: images, labels, recipe or options.
        """
        file = self.path / _RUN
        if not file.exists():
            return
        try:
            before = dict(json.loads(file.read_bytes()))
        except (OSError, ValueError, TypeError):
            before = {}
        other = _differences(before, json.loads(json.dumps(facts)))
        if other:
            raise PromptRayError(
                "adapt.state",
                "the folder holds an adaptation that began with something else",
                artefact=self.path.name,
                found=f"other {', '.join(other)}",
                cure="choose another folder with -o; features.safetensors may be copied there",
            )

    def claim(self, facts: Mapping[str, Any]) -> None:
        """Begin a run, or go on with one that rests on the same facts.

        Raises
        ------
        PromptRayError
            ``adapt.state`` as :meth:`require_same`; ``output.unwritable``.
        """
        self.require_same(facts)
        replace_whole(self.path / _RUN, json.dumps(facts, indent=2).encode() + b"\n")

    def _require_free(self) -> None:
        try:
            there = {entry.name for entry in self.path.iterdir()} if self.path.exists() else set()
        except OSError as error:
            raise PromptRayError(
                "output.unwritable",
                f"the folder cannot be used: {error.strerror}",
                artefact=self.path.name,
                cure="choose another folder with -o",
            ) from None
        if REPORT in there:
            raise self._exists("the folder holds a finished adaptation", REPORT)
        foreign = sorted(there - {_LOCK})
        if foreign and _RUN not in there and not _only_partial(foreign):
            raise self._exists("the folder is not empty, and no adaptation began in it", foreign[0])

    def _exists(self, what: str, found: str) -> PromptRayError:
        return PromptRayError(
            "output.exists", what, artefact=self.path.name, found=found, cure="choose another folder with -o"
        )


def _only_partial(names: list[str]) -> bool:
    """Tell whether there is nothing but what a kill at the very beginning leaves, or copied vectors."""
    return all(name.startswith(".") or name == FEATURES for name in names)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name what differs; of options, which are facts in a dictionary of their own, with both values."""
    said = []
    for key in sorted(key for key in {*before, *now} if before.get(key) != now.get(key)):
        old, new = before.get(key), now.get(key)
        if key in OPTIONS and isinstance(old, dict) and isinstance(new, dict):
            names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
            said += [f"{name} ({_value(old.get(name))}, now {_value(new.get(name))})" for name in names]
        else:
            said.append(key)
    return said


def _value(value: object) -> str:
    return "not given" if value is None else value if isinstance(value, str) else json.dumps(value)
