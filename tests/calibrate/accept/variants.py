"""The miniature bundle once more: from another recipe, with other weights, or of another checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from PIL import Image

from promptray.runtime.bundle import Bundle, write_bundle
from tests import bundle_factory as factory
from tests.fuzz.own_answers import with_own_answers
from tests.fuzz.small_bundle import graphs_with_text, small_files

_IMAGE_GRAPH = "graphs/image/fp32-20.onnx"


def write_variant(folder: Path, name: str, *, noise: float = 0.0, **changes: Any) -> Bundle:
    """Write ``<name>.bundle``; with `noise` on the weights of its image graph, its manifest changed."""
    manifest = factory.manifest(graphs=graphs_with_text(), name=name, **changes)
    files = small_files(folder)
    model = onnx.load_from_string(files[_IMAGE_GRAPH])
    kernel = next(each for each in model.graph.initializer if each.name == "kernel")
    values = numpy_helper.to_array(kernel)
    added = noise * np.random.default_rng(1).normal(size=values.shape)
    kernel.CopyFrom(numpy_helper.from_array((values + added).astype(np.float32), "kernel"))
    files[_IMAGE_GRAPH] = model.SerializeToString()
    return write_bundle(folder / f"{name}.bundle", manifest, dict(with_own_answers(manifest, files)))


def provenance(**changes: Any) -> dict[str, Any]:
    """The miniature's provenance with some fields replaced."""
    return {**factory.document()["provenance"], **changes}


def write_films(folder: Path, count: int) -> Path:
    """Write pictures of noise, named as patients are."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(random.integers(0, 256, (48, 64), np.uint8)).save(folder / f"doe^{number:03}.png")
    return folder
