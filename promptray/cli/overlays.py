"""Overlay PNGs of a batch: heat maps over the images, at their own resolution."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from promptray.cli.output import visible
from promptray.runtime.bundle.outside import require_outside
from promptray.runtime.errors import PromptRayError
from promptray.runtime.finding_names import FindingName
from promptray.runtime.result import Result
from promptray.runtime.scorer import Scorer


class Overlays:
    """Writes one PNG for each image and finding, at the image's own resolution; no two get the same name."""

    def __init__(self, folder: Path, findings: Sequence[FindingName]) -> None:
        require_outside(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise click.ClickException(f"{folder} cannot be made: {error.strerror}") from error
        self._folder = folder
        self._findings = findings
        self._names: set[str] = set()
        self.failed = False

    def write(self, scorer: Scorer, result: Result, source: Path, declared: dict[str, Any]) -> None:
        """Write the overlays of one image; one that cannot be written is reported, and the batch goes on."""
        from promptray.runtime.overlay import write_overlay

        try:
            grey = scorer.picture(source, **declared).grey
            for name in self._findings:
                path = self._folder / self._unused(f"{source.name}.{_safe(name)}")
                write_overlay(path, grey, result.heatmap(name))
        except (OSError, PromptRayError) as error:
            self.failed = True
            reason = error.code if isinstance(error, PromptRayError) else error.strerror
            image = visible(result.name)
            click.echo(f"{image}: scored, but its overlays could not be written: {reason}", err=True)

    def _unused(self, stem: str) -> str:
        """Number a name that is taken: files of several folders, and keys, may be called alike."""
        name, number = f"{stem}.png", 1
        while name in self._names:
            number += 1
            name = f"{stem}-{number}.png"
        self._names.add(name)
        return name


def _safe(name: FindingName) -> str:
    parts = (name,) if isinstance(name, str) else name
    safe = ("".join(char if char.isalnum() or char in "-_" else "_" for char in part) for part in parts)
    return ".".join(safe)
