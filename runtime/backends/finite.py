"""Is every value a number? Asked of everything that goes from one graph to the next, in every call."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.backends.declared import PIXELS
from promptray.runtime.backends.not_finite import not_finite, pixels_not_finite

Array = NDArray[Any]


def all_finite(values: Array) -> bool:
    """Tell whether an array holds neither NaN nor infinity.

    Parameters
    ----------
    values : float array
    """
    # Neither can leave a sum again, in whichever order it is taken: a sum, which takes no memory, answers at
    # once unless it overflows.
    plain = values.dtype == np.float32 and values.flags.c_contiguous
    if plain and math.isfinite(np.einsum("i->", values.reshape(-1))):
        return True
    return bool(np.isfinite(values).all())


def require_finite(outputs: Mapping[str, Array], role: str) -> None:
    """Refuse outputs that hold NaN or infinity: they would become a score.

    Raises
    ------
    ScoringError
        ``score.not-finite``, naming the output.
    """
    for name, values in outputs.items():
        if values.dtype.kind == "f" and not all_finite(values):
            raise not_finite(name, role)


def require_sound(
    role: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array], total: Array | None
) -> None:
    """Refuse what a graph gave where it, or the pixels it was given, hold NaN or infinity.

    Parameters
    ----------
    role : str
        The graph's.
    inputs, outputs : mapping of str to array
    total : float32 array of one element, or None
        The graph's own sum of them (:data:`promptray.runtime.backends.onnx_total.TOTAL`): then they are not
        read, unless the sum is no number, be it that theirs overflowed.

    Raises
    ------
    ScoringError
        ``score.not-finite``, naming the network input or the output.
    """
    if total is None or not math.isfinite(total.item()):
        if role == "image":
            require_finite_pixels(inputs[PIXELS])
        require_finite(outputs, role)


def require_finite_pixels(pixels: Array) -> None:
    """Refuse network input that holds NaN or infinity: a quantised graph takes it for a number.

    Raises
    ------
    ScoringError
        ``score.not-finite``.
    """
    if pixels.dtype.kind == "f" and not all_finite(pixels):
        raise pixels_not_finite()
