"""torch's own cubic resize of floats, which the runtime repeats without torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from promptray.runtime.interpolation import interpolate
from promptray.runtime.resize_cubic import resize_cubic

#: Levels of 0..255: torch sums in float32.
LAST_BITS = 5e-4


def noise(rows: int, columns: int, seed: int = 0) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    return generator.choice([0, 255, 17.25, 128], (rows, columns)).astype(np.float32)


def by_torch(picture: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(picture)[None, None], size=(rows, columns), mode="bicubic", align_corners=False
    )
    found: NDArray[np.float32] = resized[0, 0].numpy()
    return found


@pytest.mark.parametrize(
    ("shape", "size"), [((320, 320), (224, 224)), ((320, 320), (32, 32)), ((224, 224), (320, 320))]
)
def test_a_whole_picture_is_torchs(shape: tuple[int, int], size: tuple[int, int]) -> None:
    picture = noise(*shape)
    assert np.abs(resize_cubic(picture, *size) - by_torch(picture, *size)).max() <= LAST_BITS


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(0, 3))
def test_any_size_is_torchs(rows: int, columns: int, height: int, width: int, seed: int) -> None:
    picture = noise(rows, columns, seed)
    made = resize_cubic(picture, height, width)
    assert (made.dtype, made.flags.c_contiguous) == (np.float32, True)
    assert np.abs(made - by_torch(picture, height, width)).max() <= LAST_BITS


def test_nothing_is_antialiased_and_edges_overshoot() -> None:
    """Both tell it from Pillow's filter of 8 bits, which would do neither."""
    stripes = np.tile(np.array([0, 255], np.float32), (8, 32))
    narrow = resize_cubic(stripes, 8, 8)
    assert narrow.std() < 1e-3, "every output falls between two stripes"
    edge = np.repeat(np.array([[0.0] * 6 + [255.0] * 6], np.float32), 4, axis=0)
    made = resize_cubic(edge, 4, 17)
    assert made.min() < -5
    assert made.max() > 260


def test_the_picture_stays_and_channels_are_resized_one_by_one() -> None:
    picture = np.stack([noise(20, 30, seed) for seed in range(3)], axis=-1)
    before = picture.copy()
    made = interpolate(picture[:, ::-1], 11, 13, "cubic")
    for channel in range(3):
        np.testing.assert_array_equal(made[..., channel], resize_cubic(picture[:, ::-1, channel], 11, 13))
    np.testing.assert_array_equal(picture, before)
    same = interpolate(picture, 20, 30, "cubic")
    np.testing.assert_array_equal(same, picture)
    assert not np.shares_memory(same, picture)
