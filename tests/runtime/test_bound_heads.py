"""Outputs of a head's batches become scores and maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from promptray.runtime.bound_heads import BoundBatch, BoundHead

Array = NDArray[Any]
LOGITS = np.arange(8, dtype=np.float32).reshape(2, 4)
MAPS = np.arange(2 * 4 * 3 * 2, dtype=np.float32).reshape(2, 4, 3, 2)


class Transposed:
    """A head whose outputs lie in another order than their shape says, as torch's may."""

    def __init__(self, places: list[int], size: int) -> None:
        self._places, self._size = places, size

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        rest = [0] * (self._size - len(self._places))
        return {
            "logits": np.asfortranarray(LOGITS[:, self._places + rest]),
            "maps": np.asfortranarray(MAPS[:, self._places + rest]),
        }


@pytest.mark.parametrize("batches", [[([0, 1, 2, 3], 4)], [([0, 1, 2, 3], 6)], [([1, 3], 4), ([0, 2], 2)]])
def test_scores_and_maps_are_in_order_and_contiguous(batches: list[tuple[list[int], int]]) -> None:
    head = BoundHead(
        tuple(BoundBatch(np.array(places), size, Transposed(places, size)) for places, size in batches)
    )
    logits, maps = head.run({"features": np.zeros((2, 1), np.float32)})
    assert maps is not None
    np.testing.assert_array_equal(logits, LOGITS)
    np.testing.assert_array_equal(maps, MAPS)
    # Whoever writes them to a file writes the memory as it lies.
    assert logits.tobytes() == LOGITS.tobytes()
    assert logits.flags.c_contiguous
    assert maps.flags.c_contiguous
