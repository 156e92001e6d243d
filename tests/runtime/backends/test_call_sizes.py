"""Calls are made in few sizes: any number of images is made of them, and no image is left or scored twice."""

from __future__ import annotations

import pytest

from promptray.runtime.backends.call_sizes import call_sizes, parts_of


@pytest.mark.parametrize(
    ("tuned", "most", "expected"),
    [
        ([1], 1, (1,)),
        ([1], 8, (1, 2, 4, 8)),
        ([6], 8, (1, 2, 4, 6, 8)),
        ([1, 7], 12, (1, 2, 4, 7, 8, 12)),
        ([2], 2, (1, 2)),
    ],
)
def test_sizes_are_powers_of_two_what_is_tuned_and_the_most(
    tuned: list[int], most: int, expected: tuple[int, ...]
) -> None:
    assert call_sizes(tuned, most) == expected


@pytest.mark.parametrize("most", [1, 2, 6, 8])
def test_parts_are_sizes_and_hold_every_image_once(most: int) -> None:
    sizes = call_sizes([1], most)
    for images in range(1, 40):
        parts = parts_of(images, sizes)
        assert [number for first, last in parts for number in range(first, last)] == list(range(images))
        lengths = [last - first for first, last in parts]
        assert set(lengths) <= set(sizes)
        assert lengths == sorted(lengths, reverse=True)
        assert sum(length < most for length in lengths) <= most.bit_length()
