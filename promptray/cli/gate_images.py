"""What commands share that hold the gates of docs/gates.md on images of a site: options, images, reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptray.cli.named_path import NamedPath
from promptray.runtime.bundle.manifest import Manifest

if TYPE_CHECKING:
    from promptray.calibrate.gates.report import GateReport
    from promptray.calibrate.image_set import ImageSet, Progress

_PATH = NamedPath(path_type=Path)
labels_option = click.option("--labels", type=_PATH, help="CSV of these images, as for evaluate.")
source_option = click.option(
    "--source", default="images of this site", help="What the images are, for the report: never a patient."
)
report_option = click.option(
    "--report", type=_PATH, metavar="DIR", help="Folder for the reports of the gates on images."
)


def read_images(manifest: Manifest, options: Mapping[str, Any], folder: Path, report: Progress) -> ImageSet:
    """Read the images that `--images`, `--labels` and `--source` name; `folder` keeps hashes meanwhile."""
    from promptray.calibrate.image_set import ImageSet
    from promptray.export.stage_cache import StageCache

    return ImageSet(
        "images",
        _Images(options["images"], options["labels"], options["source"]),
        Path(),
        {finding.key for finding in manifest.findings},
        door=manifest.door,
        preprocessing=manifest.preprocessing,
        stages=StageCache(folder),
        progress=report,
        named_by="--images",
    )


@dataclass(frozen=True)
class _Images:
    """The images as the command names them (`promptray.calibrate.image_set.ImagesOf`)."""

    folder: Path
    table: Path | None
    source: str

    @property
    def images(self) -> str:
        return str(self.folder.absolute())

    @property
    def labels(self) -> str | None:
        return None if self.table is None else str(self.table.absolute())


class GateReports:
    """The folder that reports of the gates are written to, passed or not; claimed before the long work."""

    def __init__(self, folder: Path | None, manifest: Manifest) -> None:
        from promptray.calibrate.output_folder import OutputFolder

        names = [f"head-{head.name}.{ending}" for head in manifest.heads for ending in ("json", "txt")]
        self._folder = None if folder is None else OutputFolder(folder, names, "--report")

    def write(self, reports: Mapping[str, GateReport]) -> None:
        """Write a report of each head, as JSON and as text."""
        from promptray.calibrate.gates.on_images import as_document
        from promptray.calibrate.gates.table import gate_text

        if self._folder is None:
            return
        files = {}
        for name, each in reports.items():
            files[f"head-{name}.json"] = as_document(each)
            files[f"head-{name}.txt"] = gate_text(each).encode()
        self._folder.write(files)
