"""What is fuzzed: from any bytes to a result or to a refusal with a registered code, and to nothing else.

A target is a function of bytes. It returns quietly on a result that keeps its promises and on a
:class:`PromptRayError`; whatever else it raises is a finding.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from promptray.export.recipe import read_recipe
from promptray.runtime.bundle.image_rules import Door, Greyscale
from promptray.runtime.door import open_picture
from promptray.runtime.errors import CODES, BuildError, ImageError, PromptRayError
from promptray.runtime.picture import Picture
from promptray.runtime.scorer import Scorer
from promptray.runtime.verify import verify
from tests.fuzz import seeds
from tests.fuzz.dual_encoder import write_dual_encoder
from tests.fuzz.small_bundle import REPLACED, TEXT_GRAPH, TOKENIZER, SmallBundle, write_small

#: Nearly every modality may enter, so that the pixels are reached, not only the policy table.
DOOR = Door(modalities=["CR", "DX", "CT", "MR", "NM", "OT", "RTDOSE", "XA"], minimum_side=8)


@dataclass(frozen=True)
class Target:
    """A function to fuzz, where it begins, and words that random bytes would hardly hit upon."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Mapping[str, bytes]]
    words: tuple[bytes, ...] = ()


def enter_picture(data: bytes) -> None:
    """Open bytes at the door as a caller would: modality declared, frame chosen where one is asked for."""
    for options in ({}, {"modality": "CR"}, {"frame": 1}):
        try:
            picture = open_picture(data, DOOR, Greyscale(), **options)  # type: ignore[arg-type]
        except ImageError as error:
            _require_registered(error)
            continue
        _require_picture(picture.grey)
        if picture.source.kind != "dicom":  # of which colour is never kept
            _enter_colour(data, picture, options)
        return


def _enter_colour(data: bytes, grey: Picture, options: Mapping[str, object]) -> None:
    """Open a PNG or JPEG that entered grey as a model does that reads colour; more of it may be refused."""
    try:
        picture = open_picture(data, DOOR, Greyscale(), keep_colour=True, **options)  # type: ignore[arg-type]
    except ImageError as error:
        _require_registered(error)
        return
    _require_picture(picture.grey)
    colour, shape = picture.colour, grey.grey.shape
    if picture.grey.shape != shape or (
        colour is not None and (colour.dtype != np.uint8 or colour.shape != (*shape, 3))
    ):
        raise AssertionError("the colour is not of the same picture")


def _require_picture(grey: NDArray[np.generic]) -> None:
    if grey.dtype != np.uint8 or grey.ndim != 2 or min(grey.shape) < 8 or grey.min() == grey.max():
        raise AssertionError("the door let through what is no picture")


def enter_bundle(data: bytes) -> None:
    """Put the bytes in the place of one file of a bundle, seal it again, verify and use it.

    The first byte says which file of which bundle (see :func:`_places`).
    """
    places = _places()
    bundle, name, against = places[(data or b"\0")[0] % len(places)]
    bundle.replace(name, data[1:])
    try:
        verify(bundle.path, site=None, threads=1)
        if name in (TOKENIZER, TEXT_GRAPH):
            with Scorer.open(bundle.path, site=None, threads=1) as scorer:
                scorer.prompts.add("rib fracture", "There is a rib fracture.", negative_prompt=against)
    except PromptRayError as error:
        _require_registered(error)


def enter_recipe(data: bytes) -> None:
    """Read the bytes as a recipe."""
    path = _scratch() / "recipe.yaml"
    path.write_bytes(data)
    try:
        read_recipe(path)
    except BuildError as error:
        _require_registered(error)


def _require_registered(error: PromptRayError) -> None:
    if error.code not in CODES or not error.message:
        raise AssertionError(f"a refusal without registered code or message: {error.code!r}")


@functools.cache
def _scratch() -> Path:
    memory = Path("/dev/shm")  # thousands of files a minute are no work for a disk
    folder = Path(tempfile.mkdtemp(prefix="promptray-fuzz-", dir=memory if memory.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _places() -> tuple[tuple[SmallBundle, str, tuple[str, ...]], ...]:
    """Bundle, file in it, and what its findings are asked against: with rows, then a dual encoder's pairs."""
    write_small(_scratch())
    write_dual_encoder(_scratch() / "dual.bundle")
    kinds = (("small.bundle", ()), ("dual.bundle", ("There is no finding.",)))
    bundles = [(SmallBundle(_scratch() / name), against) for name, against in kinds]
    return tuple((bundle, name, against) for bundle, against in bundles for name in REPLACED)


def _bundle_seeds() -> dict[str, bytes]:
    """Inputs that leave the bundles as they are, one for each file."""
    return {
        f"{bundle.path.stem}-{name.replace('/', '-')}": bytes([number]) + bundle.content(name)
        for number, (bundle, name, _) in enumerate(_places())
    }


TARGETS: dict[str, Target] = {
    "dicom": Target(enter_picture, seeds.dicom, seeds.DICOM_WORDS),
    "png": Target(enter_picture, seeds.png, seeds.PNG_WORDS),
    "jpeg": Target(enter_picture, seeds.jpeg, seeds.JPEG_WORDS),
    "bundle": Target(enter_bundle, _bundle_seeds, seeds.BUNDLE_WORDS),
    "recipe": Target(enter_recipe, seeds.recipe, seeds.RECIPE_WORDS),
}
