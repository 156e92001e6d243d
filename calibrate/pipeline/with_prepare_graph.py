"""The graph that prepares images on a device, put into a bundle and proved on its golden images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from promptray.calibrate.pipeline.as_written import AsWritten
from promptray.export.draft import Draft
from promptray.export.prepare_graph import prepare_graph
from promptray.runtime.bundle.validate_engines import PREPARE
from promptray.runtime.engines.bounds import MOST_LEVELS
from promptray.runtime.errors import BuildError
from promptray.runtime.golden_prepare import prepared_golden, worst_level
from promptray.runtime.prepare_graph import StoredImage


def with_prepare_graph(made: Draft) -> Draft:
    """Add the graph of the bundle's own preprocessing, which it must be able to express.

    Parameters
    ----------
    made : Draft
        With a section `engines`.

    Raises
    ------
    BuildError
        ``gate.failed`` where its pixels of a grey golden image are further off than one grey level.
    """
    manifest = made.manifest
    content = prepare_graph(manifest.preprocessing)
    worst = worst_level(made, *prepared_golden(made, _Written(content)))
    if not worst <= MOST_LEVELS:
        raise BuildError(
            "gate.failed",
            "the graph that prepares images on a device gives other pixels than the CPU",
            artefact=f"{manifest.name}, golden images",
            expected="within 1 grey level",
            found=f"off by {worst:.3g}",
            cure="leave tensorrt.prepare out, and report the family",
        )
    assert manifest.engines is not None  # noqa: S101 - the caller made it
    engines = msgspec.structs.replace(manifest.engines, prepare=PREPARE)
    return replace(
        made,
        manifest=msgspec.structs.replace(manifest, engines=engines),
        files={**made.files, PREPARE: content},
    )


class _Written:
    """The graph as ONNX Runtime computes it on the CPU (`promptray.runtime.backends.Preparing`)."""

    def __init__(self, content: bytes) -> None:
        self._graph = AsWritten(content, PREPARE)

    def run(self, image: StoredImage) -> Any:
        return self._graph.run(image.inputs)["pixels"]
