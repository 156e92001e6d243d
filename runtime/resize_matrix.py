"""The filters of `promptray.runtime.interpolation` as matrices, one for each axis.

A device resizes with two matrix products. Weights are those of the CPU's filters; sums are in float32 and
in another order, and OpenCV's integer filters drop bits on the way. So a resized picture is within one grey
level of the CPU's, and mostly equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.bundle.image_rules import Interpolation
from promptray.runtime.resize import area_weights, grown_weights
from promptray.runtime.resize_cubic import cubic_taps
from promptray.runtime.resize_linear import Between, linear_weights

Matrix = NDArray[np.float32]
Places = NDArray[np.intp]
#: Pillow's fixed point: weights are rounded to 22 bits.
_BITS = 22


def resize_matrices(
    interpolation: Interpolation,
    source: tuple[int, int],
    target: tuple[int, int],
    places: Sequence[Places],
    *,
    whole: bool,
) -> tuple[Matrix, Matrix]:
    """Return the weights of a resize for both axes.

    Parameters
    ----------
    interpolation : str
    source, target : (int, int)
        Rows and columns before and after.
    places : two arrays of int, shapes (height,) and (width,)
        The rows, and the columns, of the resized picture that are wanted; nothing is taken where it is below
        0, which is padding.
    whole : bool
        Whether levels are rounded to 8 bits: Pillow then takes weights in fixed point.

    Returns
    -------
    down : float32 (height, source rows)
    across : float32 (source columns, width)
    """
    if interpolation == "area":
        grows = target[0] > source[0] or target[1] > source[1]
        weights: Callable[[int, int, Places], Any] = _of_grown if grows and source != target else _of_area
    elif interpolation == "linear":
        weights = _of_linear
    elif interpolation == "cubic":
        weights = _of_cubic
    else:
        name = interpolation

        def weights(before: int, after: int, places: Places) -> Any:
            return _of_pillow(name, before, after, places, whole=whole)

    down, across = (weights(*axis) for axis in zip(source, target, places, strict=True))
    return down.astype(np.float32), np.ascontiguousarray(across.T, np.float32)


def nudge_of(interpolation: Interpolation, source: tuple[int, int], target: tuple[int, int]) -> float:
    """Return what is added before a level is rounded half to even, so that it rounds as the CPU's filter.

    OpenCV rounds the mean of 2 x 2 half up. Its integer filters drop bits three times, a quarter of a level
    on average.
    """
    halves = (2 * target[0], 2 * target[1]) == source
    if interpolation in ("area", "linear") and halves:
        return 0.125
    grows = target[0] > source[0] or target[1] > source[1]
    return (
        -0.25
        if source != target and (interpolation == "linear" or (interpolation == "area" and grows))
        else 0.0
    )


def _of_area(source: int, target: int, places: Places) -> NDArray[np.float64]:
    return _dense(*area_weights(source, target), source, places)


def _of_grown(source: int, target: int, places: Places) -> NDArray[np.float64]:
    return _of_between(grown_weights(source, target), source, places)


def _of_linear(source: int, target: int, places: Places) -> NDArray[np.float64]:
    return _of_between(linear_weights(source, target), source, places)


def _of_between(between: Between, source: int, places: Places) -> NDArray[np.float64]:
    return _dense(between.index, between.weight / 2048.0, source, places)


def _of_cubic(source: int, target: int, places: Places) -> NDArray[np.float64]:
    return _dense(*cubic_taps(source, target), source, places)


def _dense(index: NDArray[Any], weight: NDArray[Any], source: int, places: Places) -> NDArray[np.float64]:
    """Return a matrix (places, source) of taps and weights, both (taps, target)."""
    made = np.zeros((len(places), source))
    wanted = np.flatnonzero(places >= 0)
    taken = places[wanted]
    np.add.at(made, (wanted[None], index[:, taken]), weight[:, taken])
    return made


def _of_pillow(name: str, source: int, target: int, places: Places, *, whole: bool) -> NDArray[np.float64]:
    """Return the weights of Pillow's ``precompute_coeffs``: the filter widened by the reduction."""
    support, weigh = _FILTERS[name]
    scale = source / target
    wide = max(scale, 1.0)
    made = np.zeros((len(places), source))
    for row in np.flatnonzero(places >= 0):
        output = int(places[row])
        if source == target:  # Pillow leaves this axis out
            made[row, output] = 1.0
            continue
        centre = (output + 0.5) * scale
        first = max(int(centre - support * wide + 0.5), 0)
        last = min(int(centre + support * wide + 0.5), source)
        # In Pillow's order of operations: a weight that ends otherwise in its last bit moves ties.
        raw = [weigh((place - centre + 0.5) * (1.0 / wide)) for place in range(first, last)]
        weights = np.array(raw) / sum(raw)
        if whole:
            weights = np.rint(weights * (1 << _BITS)) / (1 << _BITS)
        made[row, first:last] = weights
    return made


def _triangle(distance: float) -> float:
    return max(0.0, 1.0 - abs(distance))


def _bicubic(distance: float) -> float:
    x, a = abs(distance), -0.5
    if x < 1:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


def _lanczos(distance: float) -> float:
    if not -3.0 <= distance < 3.0:
        return 0.0
    return _sinc(distance) * _sinc(distance / 3)


def _sinc(distance: float) -> float:
    return 1.0 if distance == 0 else math.sin(math.pi * distance) / (math.pi * distance)


#: Pillow's filter -> half its width, and its weight at a distance.
_FILTERS: dict[str, tuple[float, Callable[[float], float]]] = {
    "bilinear": (1.0, _triangle),
    "bicubic": (2.0, _bicubic),
    "lanczos": (3.0, _lanczos),
}
