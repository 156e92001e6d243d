"""Extended JPEG of 12 bits: samples are those of T.81 A.3.3, GDCM's but for rounding; damage is refused."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from promptray.runtime.dicom.jpeg_extended import decode_extended
from promptray.runtime.dicom.jpeg_scan import MAX_INTERVALS
from promptray.runtime.errors import ImageError
from tests.runtime.dicom import gdcm_oracle
from tests.runtime.dicom.jpeg_encoder import encode_extended, frame_header, scan_header, segment

SYNTAX = "1.2.840.10008.1.2.4.51"
SHAPE = (35, 29)
BLOCKS = 5 * 4

# Figure A.6, copied from the standard by hand.
ZIGZAG = np.array(
    [
        [0, 1, 5, 6, 14, 15, 27, 28],
        [2, 4, 7, 13, 16, 26, 29, 42],
        [3, 8, 12, 17, 25, 30, 41, 43],
        [9, 11, 18, 24, 31, 40, 44, 53],
        [10, 19, 23, 32, 39, 45, 52, 54],
        [20, 22, 33, 38, 46, 51, 55, 60],
        [21, 34, 37, 47, 50, 56, 59, 61],
        [35, 36, 48, 49, 57, 58, 62, 63],
    ]
)


def coefficients(seed: int, count: int = BLOCKS) -> NDArray[np.integer]:
    """Blocks as films have them: a wandering mean, few and small high frequencies."""
    generator = np.random.default_rng(seed)
    scale = 300 / (1 + np.arange(64)) ** 1.2
    blocks = np.rint(generator.laplace(0, scale, (count, 64))).astype(np.int64)
    blocks[generator.random((count, 64)) < 0.5] = 0
    blocks[:, 0] += generator.integers(-600, 600, count)
    return blocks


def quantisation(seed: int, top: int = 30) -> NDArray[np.integer]:
    return np.random.default_rng(seed).integers(1, top, 64)


def exact(blocks: NDArray[np.integer], table: NDArray[np.integer], shape: tuple[int, int]) -> NDArray[Any]:
    """The inverse transform as a sum over u and v (A.3.3), before rounding."""
    across = -(-shape[1] // 8)
    values = (blocks * table)[:, ZIGZAG]  # (blocks, v, u)
    weight = np.where(np.arange(8) == 0, np.sqrt(0.5), 1.0)
    picture = np.zeros((-(-shape[0] // 8) * 8, across * 8))
    for number, block in enumerate(values):
        for y in range(8):
            for x in range(8):
                cosines = np.outer(
                    weight * np.cos((2 * y + 1) * np.arange(8) * np.pi / 16),
                    weight * np.cos((2 * x + 1) * np.arange(8) * np.pi / 16),
                )
                sample = (block * cosines).sum() / 4 + 2048
                picture[number // across * 8 + y, number % across * 8 + x] = sample
    return np.clip(picture[: shape[0], : shape[1]], 0, 4095)


def refused(frame: bytes) -> str:
    with pytest.raises(ImageError) as refusal:
        decode_extended(frame)
    assert refusal.value.code == "image.broken"
    return refusal.value.message


def outcome(frame: bytes) -> str:
    """What becomes of a damaged frame; any exception but a refusal passes, and fails the test."""
    try:
        decoded = decode_extended(frame)
    except ImageError as error:
        return error.code
    return "a picture" if decoded.ndim == 2 and decoded.dtype == np.uint16 else "neither"


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 40), st.integers(0, 7))
@settings(deadline=None, max_examples=25)
def test_samples_are_those_of_the_formula(seed: int, rows: int, columns: int, restarts: int) -> None:
    blocks, table = coefficients(seed, -(-rows // 8) * -(-columns // 8)), quantisation(seed)
    decoded = decode_extended(encode_extended(blocks, (rows, columns), table, restarts))
    assert decoded.dtype == np.uint16
    assert np.abs(decoded - exact(blocks, table, (rows, columns))).max() <= 0.5 + 1e-5


@pytest.mark.parametrize(("restarts", "top"), [(0, 30), (0, 900), (3, 30), (1, 30)])
def test_the_test_encoder_and_the_decoder_agree_with_gdcm(restarts: int, top: int) -> None:
    table = quantisation(1, top)
    frame = encode_extended(coefficients(restarts) * 30 // top, SHAPE, table, restarts)
    expected = gdcm_oracle.decode(frame, SYNTAX, SHAPE, 12).astype(np.int64)
    assert np.abs(decode_extended(frame) - expected).max() <= 1
    assert expected.std() > 100


def test_halves_round_up() -> None:
    blocks = np.zeros((4, 64), np.int64)
    blocks[:, 0] = [4, 12, -4, -12]  # an eighth of them: 0.5, 1.5, -0.5, -1.5
    decoded = decode_extended(encode_extended(blocks, (8, 32), np.ones(64, np.int64)))
    assert decoded[0, ::8].tolist() == [2049, 2050, 2048, 2047]


def test_a_frame_of_many_chunks_and_full_blocks() -> None:
    generator = np.random.default_rng(3)
    blocks = generator.integers(-900, 900, (40 * 40, 64)) // (1 + np.arange(64))
    frame = encode_extended(blocks, (320, 320), np.ones(64, np.int64))
    assert len(frame) > 4 * (1 << 14)
    expected = gdcm_oracle.decode(frame, SYNTAX, (320, 320), 12).astype(np.int64)
    assert np.abs(decode_extended(frame) - expected).max() <= 1


def test_a_frame_with_missing_data_is_refused() -> None:
    frame = encode_extended(coefficients(0), SHAPE, quantisation(0))
    for length in range(0, len(frame), 3):
        refused(frame[:length])
        if length < len(frame) - 2:
            refused(frame[:length] + b"\xff\xd9")
    start = frame.index(scan_header(0, 63, 0)) + 30
    assert "end where its pixels do" in refused(frame[:-2] + b"\x55\xff\xd9")
    refused(frame[:start] + frame[start + 40 :])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (scan_header(0, 63, 0), scan_header(0, 0, 0)),
        (scan_header(0, 63, 0), scan_header(1, 63, 0)),
        (scan_header(0, 63, 0), scan_header(0, 63, 0x10)),
        (scan_header(0, 63, 0), segment(0xDA, bytes([1, 1, 1, 0, 63, 0]))),
        (frame_header(0xC1, 12, SHAPE), frame_header(0xC1, 8, SHAPE)),
        (frame_header(0xC1, 12, SHAPE), frame_header(0xC2, 12, SHAPE)),
        (segment(0xDB, b"\0" + bytes([7] * 64)), b""),
        (segment(0xDB, b"\0" + bytes([7] * 64)), segment(0xDB, b"\0" + bytes(64))),
        (segment(0xDB, b"\0" + bytes([7] * 64)), segment(0xDB, b"\0" + bytes([7] * 63))),
        (segment(0xDB, b"\0" + bytes([7] * 64)), segment(0xDB, b"\x20" + bytes([7] * 64))),
        (segment(0xDB, b"\0" + bytes([7] * 64)), segment(0xDB, b"\4" + bytes([7] * 64))),
    ],
)
def test_impossible_headers_are_refused(old: bytes, new: bytes) -> None:
    frame = encode_extended(coefficients(0), SHAPE, np.full(64, 7))
    assert old in frame
    refused(frame.replace(old, new))


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_damaged_bytes_give_a_picture_or_a_refusal(data: st.DataObject) -> None:
    frame = bytearray(encode_extended(coefficients(0, 4), (16, 16), quantisation(0), 2))
    for position in data.draw(st.lists(st.integers(0, len(frame) - 1), max_size=4)):
        frame[position] = data.draw(st.integers(0, 255))
    assert outcome(bytes(frame)) in ("a picture", "image.broken")


def test_more_restart_intervals_than_the_limit_are_refused() -> None:
    size = 8 * 201
    frame = encode_extended(coefficients(0), SHAPE, quantisation(0), restart_interval=1)
    large = frame.replace(frame_header(0xC1, 12, SHAPE), frame_header(0xC1, 12, (size, size)))
    assert str(MAX_INTERVALS) in refused(large)
