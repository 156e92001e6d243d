"""The graph that prepares images on a device, put into a bundle and proved on its golden images."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np

from promptray.calibrate.pipeline.as_written import AsWritten
from promptray.export.draft import Draft
from promptray.export.prepare_graph import prepare_graph
from promptray.runtime.bundle.validate_engines import PREPARE
from promptray.runtime.door import open_picture
from promptray.runtime.errors import BuildError
from promptray.runtime.golden import read_golden
from promptray.runtime.prepare_graph import PrepareFeeds
from promptray.runtime.preprocess import normalise

#: Grey levels that pixels may be off, and what float32 adds to it.
MOST_LEVELS, _ROUNDING = 1.0, 1e-3


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
    worst = _worst_level(made, content)
    if not worst <= MOST_LEVELS + _ROUNDING:
        raise BuildError(
            "gate.failed",
            "the graph that prepares images on a device gives other pixels than the CPU",
            artefact=f"{manifest.name}, golden images",
            expected=f"within {MOST_LEVELS:g} grey level",
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


def _worst_level(made: Draft, content: bytes) -> float:
    """Return the largest difference in levels over the golden images; coloured ones are never prepared so."""
    manifest, rule = made.manifest, made.manifest.preprocessing
    graph, feeds = AsWritten(content, PREPARE), PrepareFeeds(rule)
    scale = 255 * np.array(rule.normalise.std, np.float32)[:, None, None]
    found = [0.0]
    for name, golden in zip(manifest.golden.images, read_golden(made).pictures, strict=True):
        picture = open_picture(
            made.read(name),
            manifest.door,
            rule.greyscale,
            keep_colour=rule.colour == "rgb",
            modality=manifest.door.modalities[0],
        )
        if picture.colour is None:
            pixels = graph.run(feeds.of_grey(picture.grey)[0])["pixels"]
            found.append(float(np.abs((pixels - normalise(golden[None], rule))[0] * scale).max()))
    return max(found)
