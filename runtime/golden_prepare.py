"""Golden pictures and made-up frames through the engine that prepares images: its pixels beside the CPU's."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.backends import Preparing
from promptray.runtime.bundle.image_rules import Preprocessing
from promptray.runtime.dicom.greyscale import Tabulated
from promptray.runtime.door import open_picture
from promptray.runtime.engines.bounds import MOST_LEVELS
from promptray.runtime.engines.settings import Range
from promptray.runtime.errors import BundleError
from promptray.runtime.golden import read_golden
from promptray.runtime.graphs import BundleContent, Graphs
from promptray.runtime.prepare_graph import PrepareFeeds, StoredImage
from promptray.runtime.preprocess import normalise
from promptray.runtime.synthetic_frames import frame_sizes, synthetic_frame


def golden_images(bundle: BundleContent) -> Iterator[tuple[int, StoredImage]]:
    """Give the golden images as a device takes them, with their number; coloured ones are left out."""
    manifest, feeds = bundle.manifest, PrepareFeeds(bundle.manifest.preprocessing)
    for number, name in enumerate(manifest.golden.images):
        picture = open_picture(
            bundle.read(name),
            manifest.door,
            manifest.preprocessing.greyscale,
            keep_colour=manifest.preprocessing.colour == "rgb",
            modality=manifest.door.modalities[0],
        )
        if picture.colour is None:
            yield number, feeds.image(Tabulated.of_grey(picture.grey))


def largest_golden(bundle: BundleContent) -> int:
    """Return the most rows or columns of any golden image that a device prepares; 0: there is none."""
    return max(
        (side for _, image in golden_images(bundle) for side in image.tabulated.codes.shape), default=0
    )


def prepared_golden(
    bundle: BundleContent, preparing: Preparing, *, pictures: int | None = None
) -> tuple[list[int], NDArray[np.float32]]:
    """Return the numbers of the grey golden images, and the pixels that a graph or engine makes of them.

    Parameters
    ----------
    bundle : BundleContent
    preparing : Preparing
    pictures : int, optional
        Only the first few; all by default.

    Returns
    -------
    list of int
    float32 (pictures, channels, height, width)
    """
    rule = bundle.manifest.preprocessing
    numbers, pixels = [], [np.empty((0, rule.channels, rule.height, rule.width), np.float32)]
    for number, image in islice(golden_images(bundle), pictures):
        numbers.append(number)
        pixels.append(preparing.run(image))
    return numbers, np.concatenate(pixels)


def worst_level(bundle: BundleContent, numbers: list[int], pixels: NDArray[np.float32]) -> float:
    """Return how many grey levels these pixels are off the stored pictures' at most; NaN stays NaN."""
    rule = bundle.manifest.preprocessing
    return _levels_off(pixels, normalise(read_golden(bundle).pictures[numbers], rule), rule)


def worst_frame(
    bundle: BundleContent, preparing: Preparing, sides: Range, *, frames: int | None = None
) -> float:
    """Prepare synthetic frames of 16 bits, and return how many grey levels they are off the CPU's at most.

    Parameters
    ----------
    bundle : BundleContent
    preparing : Preparing
    sides : Range
        Of the engine's settings.
    frames : int, optional
        Only the first few, which are the smallest; all by default.
    """
    rule, feeds = bundle.manifest.preprocessing, PrepareFeeds(bundle.manifest.preprocessing)
    sizes = frame_sizes(sides, bundle.manifest.door.minimum_side)[:frames]
    images = (feeds.image(synthetic_frame(*size)) for size in sizes)
    off = [_levels_off(preparing.run(image), image.network_input.pixels, rule) for image in images]
    return float(np.max(off))  # which keeps NaN


def _levels_off(found: NDArray[np.float32], expected: NDArray[np.float32], rule: Preprocessing) -> float:
    scale = 255 * np.array(rule.normalise.std, np.float32)[:, None, None]
    return float(np.abs((found - expected) * scale).max(initial=0.0))


def require_prepared(bundle: BundleContent, graphs: Graphs, *, whole: bool = False) -> float:
    """Prepare golden images and frames of 16 bits on the device: what a driver breaks is found.

    Parameters
    ----------
    bundle : BundleContent
    graphs : Graphs
        Of a set of engines that prepares images.
    whole : bool
        All of them; otherwise the first of each, which takes no time.

    Returns
    -------
    float
        Grey levels that pixels are off at most.

    Raises
    ------
    BundleError
        ``bundle.golden`` where pixels are further off than one grey level.
    """
    preparing, engines = graphs.preparing, graphs.engine_set
    assert preparing is not None  # noqa: S101 - the caller looked
    assert engines is not None  # noqa: S101 - nothing else prepares
    some = None if whole else 1
    golden = worst_level(bundle, *prepared_golden(bundle, preparing, pictures=some))
    frames = worst_frame(bundle, preparing, engines.settings.sides, frames=some)
    worst = float(np.max([golden, frames]))
    if worst <= MOST_LEVELS:
        return worst
    raise BundleError(
        "bundle.golden",
        "on this device the engine that prepares images gives other pixels than the CPU",
        artefact=f"{bundle.manifest.name} {bundle.short_hash}",
        expected="within 1 grey level",
        found=f"off by {worst:.3g}",
        cure="run `promptray doctor`; do not prepare images on this device until it passes",
    )
