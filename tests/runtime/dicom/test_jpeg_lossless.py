"""Lossless JPEG: every predictor, precision and restart interval comes back; damage is refused."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from promptray.runtime.dicom.jpeg_lossless import decode_lossless
from promptray.runtime.errors import ImageError
from tests.runtime.dicom import gdcm_oracle
from tests.runtime.dicom.jpeg_encoder import EVEN, SKEWED, Lossless, frame_header, scan_header, segment

SYNTAX = "1.2.840.10008.1.2.4.57"


def refused(frame: bytes) -> str:
    with pytest.raises(ImageError) as refusal:
        decode_lossless(frame)
    assert refusal.value.code == "image.broken"
    return refusal.value.message


def outcome(frame: bytes) -> str:
    """What becomes of a damaged frame; any exception but a refusal passes, and fails the test."""
    try:
        decoded = decode_lossless(frame)
    except ImageError as error:
        return error.code
    return "a picture" if decoded.ndim == 2 and decoded.dtype == np.uint16 else "neither"


def noise(precision: int, rows: int = 23, columns: int = 17) -> NDArray[np.integer]:
    return np.random.default_rng(precision).integers(0, 1 << precision, (rows, columns))


@st.composite
def films(draw: st.DrawFn) -> tuple[Lossless, NDArray[np.integer]]:
    precision = draw(st.integers(2, 16))
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    samples = draw(arrays.arrays(np.uint16, shape, elements=st.integers(0, (1 << precision) - 1)))
    encoder = Lossless(
        precision,
        predictor=draw(st.integers(1, 7)),
        point_transform=draw(st.integers(0, precision - 1)),
        restart_rows=draw(st.integers(0, shape[0])),
        counts=draw(st.sampled_from([EVEN, SKEWED])),
    )
    return encoder, samples


@given(films())
@settings(deadline=None, max_examples=300)
def test_what_is_encoded_comes_back(film: tuple[Lossless, NDArray[np.integer]]) -> None:
    encoder, samples = film
    kept = samples >> encoder.point_transform << encoder.point_transform
    decoded = decode_lossless(encoder.encode(samples))
    assert decoded.dtype == np.uint16
    np.testing.assert_array_equal(decoded, kept)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("precision", [8, 10, 12, 16])
def test_the_test_encoder_and_the_decoder_agree_with_gdcm(precision: int, predictor: int) -> None:
    samples = noise(precision)
    for point_transform, restart_rows in ((0, 0), (0, 1), (2, 7)):
        frame = Lossless(precision, predictor, point_transform, restart_rows).encode(samples)
        expected = gdcm_oracle.decode(frame, SYNTAX, samples.shape, precision)
        np.testing.assert_array_equal(expected, samples >> point_transform << point_transform)
        np.testing.assert_array_equal(decode_lossless(frame), expected)


def test_a_frame_of_many_chunks() -> None:
    samples = noise(16, 120, 300)
    frame = Lossless(16, predictor=7, counts=SKEWED).encode(samples)
    assert len(frame) > 4 * (1 << 14)
    np.testing.assert_array_equal(decode_lossless(frame), samples)


def test_the_difference_of_32768_has_no_further_bits() -> None:
    samples = np.array([[0, 32768, 0, 65535]])
    np.testing.assert_array_equal(decode_lossless(Lossless().encode(samples)), samples)


def test_more_than_eight_restart_intervals_and_fill_bytes() -> None:
    samples = noise(12)
    frame = Lossless(12, restart_rows=1).encode(samples)
    assert frame.count(b"\xff\xd7") == 2
    np.testing.assert_array_equal(decode_lossless(frame.replace(b"\xff\xd2", b"\xff\xff\xff\xd2")), samples)


def test_a_frame_that_ends_early_is_refused() -> None:
    frame = Lossless(12).encode(noise(12))
    for length in range(len(frame)):
        refused(frame[:length])
        if length < len(frame) - 2:
            refused(frame[:length] + b"\xff\xd9")


def test_data_beyond_the_last_pixel_are_refused() -> None:
    frame = Lossless(12).encode(noise(12))
    assert "end where its pixels do" in refused(frame[:-2] + b"\x55\xff\xd9")


def test_restart_markers_out_of_order_are_refused() -> None:
    frame = Lossless(12, restart_rows=5).encode(noise(12))
    for wrong in (frame.replace(b"\xff\xd1", b"\xff\xd2"), frame.replace(b"\xff\xd1", b"")):
        assert wrong != frame
        refused(wrong)


def test_a_sample_above_the_precision_is_refused() -> None:
    frame = Lossless(13).encode(noise(13))
    assert "exceeds" in refused(
        frame.replace(frame_header(0xC3, 13, (23, 17)), frame_header(0xC3, 12, (23, 17)))
    )


def test_a_code_that_is_not_in_the_table_is_refused() -> None:
    assert "not in its table" in refused(
        Lossless(12).encode(noise(12))[:-300] + b"\xff\0" * 149 + b"\xff\xd9"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (scan_header(1, 0, 0), scan_header(0, 0, 0)),  # predictor 0 is for differential frames
        (scan_header(1, 0, 0), scan_header(8, 0, 0)),
        (scan_header(1, 0, 0), scan_header(1, 63, 0)),
        (scan_header(1, 0, 0), scan_header(1, 0, 12)),  # shifts all bits away
        (scan_header(1, 0, 0), scan_header(1, 0, 0x10)),
        (scan_header(1, 0, 0), segment(0xDA, bytes([1, 2, 0, 1, 0, 0]))),  # another component
        (scan_header(1, 0, 0), segment(0xDA, bytes([1, 1, 0x10, 1, 0, 0]))),  # a table that is not there
        (scan_header(1, 0, 0), segment(0xDA, bytes([2, 1, 0, 1, 0, 1, 0, 0]))),
        (scan_header(1, 0, 0), b""),
        (frame_header(0xC3, 12, (23, 17)), frame_header(0xC0, 12, (23, 17))),
        (frame_header(0xC3, 12, (23, 17)), frame_header(0xC3, 1, (23, 17))),
        (frame_header(0xC3, 12, (23, 17)), frame_header(0xC3, 17, (23, 17))),
        (frame_header(0xC3, 12, (23, 17)), frame_header(0xC3, 12, (0, 17))),
        (frame_header(0xC3, 12, (23, 17)), frame_header(0xC3, 12, (23, 0))),
        (frame_header(0xC3, 12, (23, 17)), 2 * frame_header(0xC3, 12, (23, 17))),
        (frame_header(0xC3, 12, (23, 17)), segment(0xDD, b"\0\x05") + frame_header(0xC3, 12, (23, 17))),
        (frame_header(0xC3, 12, (23, 17)), segment(0xDD, b"\0") + frame_header(0xC3, 12, (23, 17))),
        (EVEN + bytes(range(17)), bytes([3]) + bytes(15) + bytes(3)),  # three codes of one bit
        (EVEN + bytes(range(17)), bytes(16)),
        (EVEN + bytes(range(17)), EVEN + bytes(range(16))),
        (EVEN + bytes(range(17)), EVEN + bytes([17]) * 17),
    ],
)
def test_impossible_headers_are_refused(old: bytes, new: bytes) -> None:
    frame = Lossless(12).encode(noise(12))
    assert old in frame
    head = len(EVEN + bytes(range(17))) + 2 + 1 + 4
    if old.startswith(EVEN):  # the whole table segment, so that its length stays right
        new, old = segment(0xC4, b"\0" + new), frame[2:head]
    refused(frame.replace(old, new))


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_damaged_bytes_give_a_picture_or_a_refusal(data: st.DataObject) -> None:
    frame = bytearray(Lossless(12, data.draw(st.integers(1, 7)), restart_rows=4).encode(noise(12, 9, 5)))
    for position in data.draw(st.lists(st.integers(0, len(frame) - 1), max_size=4)):
        frame[position] = data.draw(st.integers(0, 255))
    assert outcome(bytes(frame)) in ("a picture", "image.broken")


def test_a_small_frame_cannot_ask_for_much_memory() -> None:
    small, large = frame_header(0xC3, 12, (23, 17)), frame_header(0xC3, 12, (8000, 8000))
    frame = replace(Lossless(12), counts=SKEWED).encode(noise(12)).replace(small, large)
    tracemalloc.start()
    assert "ends early" in refused(frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8000 * 8000 * 2 + 2_000_000  # the picture itself, not a list of its pixels


def test_floods_of_bytes_that_mean_nothing_are_refused_at_once() -> None:
    frame = Lossless(12).encode(noise(12))
    scan = frame.index(scan_header(1, 0, 0)) + len(scan_header(1, 0, 0))
    table = segment(0xC4, b"\0" + EVEN + bytes(range(17)))
    for flood in (
        frame[:2] + 100_000 * table + frame[2:],
        frame[:2] + 3_000_000 * b"\xff" + frame[2:],
        frame[:2] + segment(0xC4, 1000 * table[4:]) + frame[2:],
        frame[:scan] + 3_000_000 * b"\xff",
        frame[:scan] + 1_000_000 * b"\xff\xd0" + b"\xff\xd9",
    ):
        refused(flood)
