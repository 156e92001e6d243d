"""Is every value a number? Asked of everything that goes from one graph to the next, in every call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    if plain and np.isfinite(np.einsum("i->", values.reshape(-1))):
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


def require_finite_pixels(pixels: Array) -> None:
    """Refuse network input that holds NaN or infinity: a quantised graph takes it for a number.

    Raises
    ------
    ScoringError
        ``score.not-finite``.
    """
    if pixels.dtype.kind == "f" and not all_finite(pixels):
        raise pixels_not_finite()
