"""Network input of the host as every backend takes it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptray.runtime.backends import Array
from promptray.runtime.backends.declared import PIXELS, DeclaredGraph
from promptray.runtime.backends.finite import require_finite_pixels
from promptray.runtime.errors import ScoringError


def sides_of(image: DeclaredGraph) -> tuple[int, ...]:
    """Return channels, height and width that an image graph takes."""
    pixels = next(each for each in image.inputs if each.name == PIXELS)
    return tuple(int(side) for side in pixels.dims[1:])


def host_input(pixels: Array, sides: Sequence[int]) -> Array:
    """Return network input as it can be scored: as :func:`fitting`, and looked through.

    Raises
    ------
    ScoringError
        ``score.input``; ``score.not-finite``.
    """
    found = fitting(pixels, sides)
    require_finite_pixels(found)
    return found


def fitting(pixels: Array, sides: Sequence[int]) -> Array:
    """Return network input as a graph takes it: contiguous.

    Libraries go by an array's kind and not by the order of its bytes: numbers of the other order would be
    read as other numbers.

    Parameters
    ----------
    pixels : float32 (images, *sides)
    sides : sequence of int
        Channels, height and width that the model takes.

    Raises
    ------
    ScoringError
        ``score.input`` for another type, byte order or shape, or no image.
    """
    if pixels.dtype != np.float32:
        raise _unfit(sides, str(pixels.dtype))
    require_shape(pixels.shape, sides)
    return np.ascontiguousarray(pixels)


def require_shape(shape: tuple[int, ...], sides: Sequence[int]) -> None:
    """Refuse what is not at least one image of the sides that the model takes (``score.input``)."""
    if shape[1:] != tuple(sides) or len(shape) != 4 or not shape[0]:
        raise _unfit(sides, str(list(shape)))


def _unfit(sides: Sequence[int], found: str) -> ScoringError:
    """Return the error of network input that the model does not take."""
    return ScoringError(
        "score.input",
        "network input of another shape or type than the model takes",
        expected=f"float32 (images, {', '.join(map(str, sides))})",
        found=found,
        cure="make it with scorer.prepare, or as the manifest's section `preprocessing` says",
    )
