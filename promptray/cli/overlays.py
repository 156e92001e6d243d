"""Overlay PNGs of a batch: heat maps over the images, at their own resolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from promptray.cli.output import visible
from promptray.runtime.errors import PromptRayError
from promptray.runtime.result import Result
from promptray.runtime.scorer import Scorer


class Overlays:
    """Writes one PNG for each image and finding, at the image's own resolution; no two get the same name."""

    def __init__(self, folder: Path, findings: tuple[str, ...]) -> None:
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
            for key in self._findings:
                safe = "".join(char if char.isalnum() or char in "-_" else "_" for char in key)
                write_overlay(self._folder / self._unused(f"{source.name}.{safe}"), grey, result.heatmap(key))
        except (OSError, PromptRayError) as error:
            self.failed = True
            reason = error.code if isinstance(error, PromptRayError) else error.strerror
            name = visible(result.name)
            click.echo(f"{name}: scored, but its overlays could not be written: {reason}", err=True)

    def _unused(self, stem: str) -> str:
        """Number a name that is taken: files of several folders, and keys, may be called alike."""
        name, number = f"{stem}.png", 1
        while name in self._names:
            number += 1
            name = f"{stem}-{number}.png"
        self._names.add(name)
        return name
