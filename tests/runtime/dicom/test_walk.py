"""Walks through a stream: as one that goes step by step, whether others meet it or not."""

import numpy as np
import pytest
from numpy.typing import NDArray

from promptray.runtime.dicom.walk import walk


def step_by_step(steps: NDArray[np.uint8], start: int) -> tuple[list[int], int]:
    visited, place = [], start
    while place < len(steps):
        visited.append(place)
        place += int(steps[place])
    return visited, place


def compare(steps: NDArray[np.uint8], start: int) -> None:
    visited, beyond = walk(steps, start)
    expected, expected_beyond = step_by_step(steps, start)
    assert beyond == expected_beyond
    np.testing.assert_array_equal(visited, expected)


@pytest.mark.parametrize("most", [1, 2, 3, 12, 255])
@pytest.mark.parametrize("size", [1, 2, 255, 4095, 4096, 4097, 50_000])
def test_random_steps(most: int, size: int) -> None:
    generator = np.random.default_rng(size + most)
    for start in (0, 1, 31, size - 1, size, size + 7):
        compare(generator.integers(1, most + 1, size).astype(np.uint8), start)


@pytest.mark.parametrize("step", [2, 3, 7, 16, 255])
def test_walks_that_never_meet(step: int) -> None:
    """All steps alike: a walk that began between the true one's places stays there."""
    for start in (0, 1, step - 1):
        compare(np.full(30_000, step, np.uint8), start)


def test_no_places() -> None:
    assert walk(np.empty(0, np.uint8), 0)[1] == 0
