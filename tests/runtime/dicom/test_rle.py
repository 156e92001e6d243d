"""RLE: every image comes back, damage gives None, and output never exceeds what the header states."""

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from pydicom.pixels.encoders.base import RLELosslessEncoder

from promptray.runtime.dicom import rle
from promptray.runtime.dicom.rle import decode_rle


def encode(pixels: NDArray[np.unsignedinteger]) -> bytes:
    bits = 8 * pixels.dtype.itemsize
    return RLELosslessEncoder.encode(
        pixels,
        encoding_plugin="pydicom",
        rows=pixels.shape[0],
        columns=pixels.shape[1],
        samples_per_pixel=1,
        photometric_interpretation="MONOCHROME2",
        bits_allocated=bits,
        bits_stored=bits,
        pixel_representation=0,
        number_of_frames=1,
    )


def frame(*segments: bytes) -> bytes:
    starts = np.cumsum([64, *map(len, segments)])[: len(segments)]
    header = [len(segments), *starts, *[0] * (15 - len(segments))]
    return struct.pack("<16I", *header) + b"".join(segments)


@given(
    st.sampled_from(["u1", "u2"]).flatmap(
        lambda dtype: arrays.arrays(dtype, st.tuples(st.integers(1, 30), st.integers(1, 30)))
    )
)
@settings(deadline=None)
def test_what_pydicom_encodes_comes_back(pixels: NDArray[np.unsignedinteger]) -> None:
    decoded = decode_rle(encode(pixels), pixels.size, pixels.dtype.itemsize)
    assert decoded is not None
    np.testing.assert_array_equal(decoded.reshape(pixels.shape), pixels)


def test_the_three_kinds_of_control_bytes_of_g_3() -> None:
    segment = bytes([2, 7, 8, 9]) + bytes([128]) + bytes([254, 5])  # three literals, nothing, three times 5
    decoded = decode_rle(frame(segment), 6, 1)
    assert decoded is not None
    assert decoded.tolist() == [7, 8, 9, 5, 5, 5]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(63),
        bytes(64),
        frame(b"\2abc"),  # one byte short
        frame(b"\3abcd", b"\3abcd"),  # a segment too many
        struct.pack("<16I", 1, 32, *[0] * 14) + b"\3abcd",  # begins inside the header
        struct.pack("<16I", 1, 9999, *[0] * 14) + b"\3abcd",  # begins after the end
        frame(b"\x80" * 50),
        frame(b"\xfd"),
    ],
)
def test_damage_gives_none(data: bytes) -> None:
    assert decode_rle(data, 4, 1) is None


@given(st.binary(max_size=300), st.integers(1, 100), st.sampled_from([1, 2, 4]))
def test_any_bytes(data: bytes, pixels: int, container: int) -> None:
    for whole in (data, frame(*[data] * container)):
        decoded = decode_rle(whole, pixels, container)
        assert decoded is None or decoded.shape == (pixels,)


def test_output_is_bounded_by_the_image() -> None:
    bomb = frame(b"\x81\0" * 1_000_000)
    tracemalloc.start()
    assert decode_rle(bomb, 1000, 1) is not None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def by_the_standard(segment: bytes, size: int) -> bytes:
    """G.3.2 word for word, one control byte after the other."""
    plane, position = b"", 0
    while len(plane) < size and position + 1 < len(segment):
        control = segment[position]
        if control < 128:
            plane += segment[position + 1 : position + 2 + control]
        elif control > 128:
            plane += segment[position + 1 : position + 2] * (257 - control)
        position += 2 + control if control < 128 else 1 if control == 128 else 2
    return plane[:size]


@pytest.mark.parametrize("chunk", [1, 2, 7, 130, 1 << 18])
@given(segment=st.binary(min_size=1, max_size=300), size=st.integers(1, 400))
def test_any_segment_in_any_chunks(chunk: int, segment: bytes, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rle, "_CHUNK", chunk)
        decoded = decode_rle(frame(segment), size, 1)
    expected = by_the_standard(segment, size)
    if decoded is None:
        assert len(expected) < size
    else:
        assert decoded.tobytes() == expected
