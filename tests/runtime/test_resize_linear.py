"""The linear resizer equals OpenCV's INTER_LINEAR bit for bit."""

import cv2
import numpy as np
import pytest

from promptray.runtime.resize_linear import resize_linear


def compare(picture: np.ndarray, target: tuple[int, int]) -> None:
    expected = cv2.resize(picture, target[::-1], interpolation=cv2.INTER_LINEAR)
    resized = resize_linear(picture, *target)
    assert resized.dtype == np.uint8
    assert resized.flags.c_contiguous
    assert not np.shares_memory(resized, picture)
    np.testing.assert_array_equal(resized, expected, err_msg=f"{picture.shape} -> {target}")


@pytest.mark.parametrize("seed", range(10))
def test_random_shapes(seed: int) -> None:
    generator = np.random.default_rng(seed)
    for _ in range(30):
        rows, columns, height, width = (int(side) for side in generator.integers(1, 400, 4))
        compare(generator.integers(0, 256, (rows, columns), dtype=np.uint8), (height, width))


@pytest.mark.parametrize("seed", range(5))
def test_radiographs_to_the_network(seed: int) -> None:
    generator = np.random.default_rng(100 + seed)
    for _ in range(5):
        rows, columns = (int(side) for side in generator.integers(60, 1800, 2))
        ratio = max(rows, columns) / 256
        target = max(1, round(rows / ratio)), max(1, round(columns / ratio))
        compare(generator.integers(0, 256, (rows, columns), dtype=np.uint8), target)


@pytest.mark.parametrize("factor", [(1, 1), (2, 2), (2, 1), (1, 2), (4, 4), (3, 2)])
def test_integer_factors(factor: tuple[int, int]) -> None:
    """Halving both sides is a branch of its own."""
    picture = np.random.default_rng(7).integers(0, 256, (31 * factor[0], 23 * factor[1]), dtype=np.uint8)
    compare(picture, (31, 23))


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3000), (3000, 2)])
@pytest.mark.parametrize("target", [(1, 1), (256, 1), (1, 256), (256, 256)])
def test_thin_pictures(shape: tuple[int, int], target: tuple[int, int]) -> None:
    compare(np.random.default_rng(8).integers(0, 256, shape, dtype=np.uint8), target)


def test_levels_at_the_ends_stay() -> None:
    for level in (0, 255):
        assert (resize_linear(np.full((90, 70), level, np.uint8), 256, 199) == level).all()


def test_any_strides() -> None:
    picture = np.random.default_rng(9).integers(0, 256, (120, 90), dtype=np.uint8)
    view = picture[::-1, ::2]
    np.testing.assert_array_equal(resize_linear(view, 50, 60), resize_linear(view.copy(), 50, 60))
