"""The resizer equals OpenCV's INTER_AREA bit for bit, in each of its branches."""

import tracemalloc

import cv2
import numpy as np
import pytest

from promptray.runtime.resize import resize_area


def compare(generator: np.random.Generator, source: tuple[int, int], target: tuple[int, int]) -> None:
    picture = generator.integers(0, 256, source, dtype=np.uint8)
    expected = cv2.resize(picture, target[::-1], interpolation=cv2.INTER_AREA)
    resized = resize_area(picture, *target)
    assert resized.dtype == np.uint8
    assert resized.flags.c_contiguous
    np.testing.assert_array_equal(resized, expected, err_msg=f"{source} -> {target}")


def longer_side(rows: int, columns: int, size: int = 256) -> tuple[int, int]:
    factor = size / max(rows, columns)
    return (size, int(columns * factor)) if rows >= columns else (int(rows * factor), size)


@pytest.mark.parametrize("seed", range(10))
def test_random_shapes(seed: int) -> None:
    generator = np.random.default_rng(seed)
    for _ in range(30):
        rows, columns, height, width = (int(side) for side in generator.integers(1, 400, 4))
        compare(generator, (rows, columns), (height, width))


@pytest.mark.parametrize("seed", range(10))
def test_pictures_larger_than_the_network(seed: int) -> None:
    generator = np.random.default_rng(100 + seed)
    for _ in range(10):
        rows, columns = (int(side) for side in generator.integers(257, 1200, 2))
        compare(generator, (rows, columns), longer_side(rows, columns))


@pytest.mark.parametrize("seed", range(5))
def test_enlarging(seed: int) -> None:
    generator = np.random.default_rng(200 + seed)
    for _ in range(20):
        rows, columns = (int(side) for side in generator.integers(2, 256, 2))
        compare(generator, (rows, columns), longer_side(max(rows, 2), max(columns, 2)))


@pytest.mark.parametrize("tall", [1, 2, 3, 4, 7, 10])
@pytest.mark.parametrize("wide", [1, 2, 3, 5, 8])
def test_integer_factors(tall: int, wide: int) -> None:
    generator = np.random.default_rng(tall * 16 + wide)
    compare(generator, (31 * tall, 23 * wide), (31, 23))


@pytest.mark.parametrize("side", [49, 98, 103, 107, 161, 187, 255, 256, 257, 512, 540, 1024, 2048])
def test_squares(side: int) -> None:
    compare(np.random.default_rng(side), (side, side), longer_side(side, side))


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3000), (3000, 2), (1, 1000)])
@pytest.mark.parametrize("target", [(1, 1), (1, 256), (256, 1), (7, 3), (64, 64)])
def test_thin_pictures(shape: tuple[int, int], target: tuple[int, int]) -> None:
    compare(np.random.default_rng(5), shape, target)


def test_a_picture_that_keeps_its_size_is_copied() -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(3, 4)
    resized = resize_area(picture, 3, 4)
    np.testing.assert_array_equal(resized, picture)
    assert not np.shares_memory(resized, picture)


def test_strided_pictures() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (600, 800), dtype=np.uint8)[::-1, ::2]
    expected = cv2.resize(np.ascontiguousarray(picture), (170, 256), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(resize_area(picture, 256, 170), expected)


@pytest.mark.parametrize(
    ("shape", "target"), [((700, 523), (256, 191)), ((401, 999), (102, 256)), ((4000, 37), (9, 7))]
)
def test_levels_next_to_a_half_are_rounded_as_opencv_does(
    shape: tuple[int, int], target: tuple[int, int]
) -> None:
    """A chessboard of two levels: nearly every mean is a half, where the order of the sum decides."""
    board = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % 2
    for low in (0, 100, 254):
        picture = (board + low).astype(np.uint8)
        expected = cv2.resize(picture, target[::-1], interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(resize_area(picture, *target), expected)


def test_memory_stays_bounded_where_every_level_is_next_to_a_half() -> None:
    picture = (np.indices((3000, 2000)).sum(axis=0) % 2).astype(np.uint8)
    expected = cv2.resize(picture, (170, 256), interpolation=cv2.INTER_AREA)
    resize_area(picture, 256, 170)  # the weights are kept
    tracemalloc.start()
    resized = resize_area(picture, 256, 170)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(resized, expected)
    assert most < 3 * picture.nbytes
