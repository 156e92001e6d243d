"""Frames of 16 bits, made up: every size that matters, and stored values from all over."""

from __future__ import annotations

import numpy as np
import pytest

from promptray.runtime.engines.settings import Range
from promptray.runtime.synthetic_frames import frame_sizes, synthetic_frame


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        (
            Range(tuned=2500, most=4608),
            [(32, 32), (2500, 2000), (2000, 2500), (4608, 3686), (3686, 4608)],
        ),
        (Range(tuned=64, most=64), [(32, 32), (64, 51), (51, 64)]),
        (Range(tuned=8, most=16), [(16, 16)]),
    ],
)
def test_sizes(sides: Range, expected: list[tuple[int, int]]) -> None:
    assert frame_sizes(sides, 32) == expected


def test_a_frame_has_every_grey_and_codes_of_16_bits() -> None:
    frame = synthetic_frame(200, 160)
    assert (frame.codes.shape, frame.codes.dtype, frame.table.shape) == ((200, 160), np.uint16, (65536,))
    assert np.bincount(frame.table).tolist() == [256] * 256
    assert (frame.codes > 255).mean() > 0.99
    assert len(np.unique(frame.codes)) > 10_000
    assert np.unique(frame.grey).size > 200
    again = synthetic_frame(200, 160)
    assert (again.codes == frame.codes).all()
    assert (again.table == frame.table).all()


def test_a_frame_has_structure_that_a_resize_keeps() -> None:
    """Turned, or of another place, the picture is another one."""
    grey = synthetic_frame(240, 240).grey.astype(float)
    blocks = grey.reshape(24, 10, 24, 10)
    assert (blocks == blocks[:, :1, :, :1]).all(), "squares of one grey"
    for other in (grey.T, grey[::-1], grey[:, ::-1], np.roll(grey, 10, 0)):
        assert np.abs(grey - other).mean() > 40
