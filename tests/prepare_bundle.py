"""Bundles with the graph that prepares images on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from promptray.export.prepare_graph import prepare_graph
from promptray.runtime.bundle import Bundle, write_bundle
from promptray.runtime.bundle.engines import Engines
from promptray.runtime.bundle.validate_engines import PREPARE
from promptray.runtime.engines.settings import Range, Settings
from tests.fuzz.small_bundle import write_small

#: Larger images are prepared on the CPU.
MOST_SIDE = 2048
SETTINGS = Settings(sides=Range(tuned=64, most=MOST_SIDE))


def write_with_prepare(folder: Path) -> Bundle:
    """Write the miniature bundle with such a graph as ``prepare.bundle``."""
    write_small(folder)
    return with_prepare(Bundle.open(folder / "small.bundle"), folder / "prepare.bundle")


def with_prepare(plain: Bundle, path: Path, **changes: Any) -> Bundle:
    """Write a bundle with such a graph, and with these changes of its manifest."""
    section = Engines(settings=SETTINGS, prepare=PREPARE)
    manifest = msgspec.structs.replace(plain.manifest, engines=section, files={}, **changes)
    files: dict[str, bytes | Path] = {name: plain.path / name for name in plain.manifest.files}
    files[PREPARE] = prepare_graph(manifest.preprocessing)
    return write_bundle(path, manifest, files)
