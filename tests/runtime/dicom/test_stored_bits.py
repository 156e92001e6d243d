"""Streams deeper than bits stored: overlays are cut, overshoots stay, what may be either is refused."""

import io
import struct
from typing import Any

import jpeg_ls
import numpy as np
import pytest
from numpy.typing import NDArray
from openjpeg.utils import encode_array as encode_j2k
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from promptray.runtime.dicom.coding import j2k_coding, jpeg_ls_coding
from tests import dicom_factory as factory
from tests.runtime.dicom.decoding import code_of, decode

J2K, JPEG_LS = (JPEG2000Lossless, JPEG2000), (JPEGLSLossless, JPEGLSNearLossless)
RAMP = factory.ramp(64, 64)
SIGNED = RAMP.astype(np.int16) - 2048


def reversible(words: NDArray[Any], syntax: UID) -> bytes:
    """A stream of 16 bits, whose wavelet is 5/3 or whose NEAR is 0."""
    return bytes(encode_j2k(words, 16)) if syntax in J2K else near(words, 0)


def near(words: NDArray[np.uint16], error: int) -> bytes:
    """A JPEG-LS stream of 16 bits."""
    rows, columns = words.shape
    size = {"rows": rows, "columns": columns, "samples_per_pixel": 1, "bits_stored": 16}
    return bytes(jpeg_ls.encode_pixel_data(words.tobytes(), lossy_error=error, **size))


def irreversible(words: NDArray[Any]) -> bytes:
    """A stream of 16 bits whose wavelet is 9/7, with little loss."""
    return bytes(encode_j2k(words, 16, compression_ratios=[2]))


def film(frame: bytes, syntax: UID, **changes: Any) -> bytes:
    """An object of 12 stored bits that holds a frame."""
    made = factory.dataset(RAMP, **changes)
    made.PixelData = encapsulate([frame])
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    return factory.encode(made, syntax)


@pytest.mark.parametrize("syntax", [*J2K, *JPEG_LS])
def test_a_reversible_stream_is_cut_whatever_the_transfer_syntax_promises(syntax: UID) -> None:
    overlaid, shifted = RAMP | np.uint16(0x8000), RAMP << 4 | np.uint16(7)
    np.testing.assert_array_equal(decode(film(reversible(overlaid, syntax), syntax)), RAMP)
    np.testing.assert_array_equal(decode(film(reversible(shifted, syntax), syntax, HighBit=15)), RAMP)
    zeros_above = SIGNED & np.int16(0x0FFF)
    words = zeros_above if syntax in J2K else zeros_above.astype(np.uint16)
    read = decode(film(reversible(words, syntax), syntax, PixelRepresentation=1))
    np.testing.assert_array_equal(read, SIGNED)


@pytest.mark.parametrize("syntax", JPEG_LS)
def test_a_near_lossless_stream_may_go_beyond_bits_stored_by_its_near_value(syntax: UID) -> None:
    white = np.random.default_rng(0).integers(4080, 4096, (64, 64), np.uint16)
    kept = decode(film(near(white, 3), syntax)).astype(int)
    assert kept.max() > 4095
    assert np.abs(kept - white).max() <= 3
    assert code_of(film(near(white + np.uint16(8), 3), syntax)) == "image.broken"
    assert code_of(film(near(RAMP | np.uint16(0x8000), 3), syntax)) == "image.broken"
    zeros_above = SIGNED.view(np.uint16) & np.uint16(4095)
    assert code_of(film(near(zeros_above, 3), syntax, PixelRepresentation=1)) == "image.broken"


@pytest.mark.parametrize("syntax", J2K)
def test_a_wavelet_that_rounds_may_go_a_little_beyond_bits_stored(syntax: UID) -> None:
    above = np.clip(RAMP, 0, 4092) + np.uint16(20)
    kept = decode(film(irreversible(above), syntax)).astype(int)
    assert kept.max() > 4095
    assert np.abs(kept - above).max() <= 16
    assert code_of(film(irreversible(RAMP | np.uint16(0x8000)), syntax)) == "image.broken"
    read = decode(film(irreversible(SIGNED), syntax, PixelRepresentation=1)).astype(int)
    assert np.abs(read - SIGNED).max() <= 16


@pytest.mark.parametrize("syntax", [JPEG2000, HTJ2K])
def test_a_stream_that_may_be_cut_short_is_refused_where_overlays_and_loss_look_alike(syntax: UID) -> None:
    few = RAMP.copy()
    few[0, :8] = 4096 + np.arange(8)  # an overlay over black, or white that overshot
    frame = reversible(few, JPEG2000)
    assert code_of(film(frame, JPEG2000)) == "image.broken"
    assert decode(film(frame, JPEG2000Lossless)).max() == 4095


def test_lossy_jpeg_in_the_upper_bits() -> None:
    pixels = (RAMP >> 4).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95)
    decoded = np.asarray(Image.open(io.BytesIO(stream.getvalue())))
    made = factory.dataset(pixels, BitsStored=6, HighBit=7)
    made.PixelData = encapsulate([stream.getvalue()])
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    np.testing.assert_array_equal(decode(factory.encode(made, JPEGBaseline8Bit)), decoded >> 2)


@pytest.mark.parametrize("syntax", [*J2K, *JPEG_LS])
def test_shallower_than_bits_stored_is_refused(syntax: UID) -> None:
    shallow = (RAMP >> 4).astype(np.uint8)
    streams = [bytes(jpeg_ls.encode_array(shallow))]
    if syntax in J2K:
        streams = [bytes(encode_j2k(shallow.view(np.int8), 8)), bytes(encode_j2k(shallow, 8))]
    for frame in streams:
        for sign in (0, 1):
            assert code_of(film(frame, syntax, PixelRepresentation=sign)) == "image.broken"
    whole = {
        "BitsStored": 16,
        "HighBit": 15,
    }  # such a tag states the container only; where the sign is, nobody
    np.testing.assert_array_equal(decode(film(streams[-1], syntax, **whole)), shallow)
    assert code_of(film(streams[0], syntax, **whole, PixelRepresentation=1)) == "image.broken"


def test_a_sign_that_contradicts_the_tag_is_refused_unless_the_bits_are_right() -> None:
    for syntax in J2K:
        assert code_of(film(reversible(SIGNED, syntax), syntax)) == "image.broken"
        assert code_of(film(irreversible(SIGNED), syntax)) == "image.broken"
    pattern = SIGNED.view(np.uint16)  # two's complement declared unsigned, as some writers do
    read = decode(film(reversible(pattern, JPEG2000Lossless), JPEG2000Lossless, PixelRepresentation=1))
    np.testing.assert_array_equal(read, SIGNED)
    for frame in (reversible(pattern, JPEG2000), irreversible(pattern)):
        assert code_of(film(frame, JPEG2000, PixelRepresentation=1)) == "image.broken"


def test_the_wavelet_of_every_tile_counts() -> None:
    stream = reversible(RAMP, JPEG2000)
    assert j2k_coding(stream, whole=True).error == 0
    assert j2k_coding(stream, whole=False).error is None
    assert not j2k_coding(irreversible(RAMP), whole=True).reversible
    tile, start = stream.index(b"\xff\x90"), stream.index(b"\xff\x93")
    cod = stream[stream.index(b"\xff\x52") :][:14]
    overruled = cod[:13] + b"\0"
    coc = b"\xff\x53\0\x09\0\0" + overruled[9:]

    def in_tile(header: bytes) -> bytes:
        size = int.from_bytes(stream[tile + 6 : tile + 10], "big") + len(header)
        return (
            stream[: tile + 6] + struct.pack(">I", size) + stream[tile + 10 : start] + header + stream[start:]
        )

    comments = b"\xff\x64\0\x02" * 2000
    assert j2k_coding(in_tile(comments + cod), whole=True).reversible
    for changed in (stream[:tile] + coc + stream[tile:], in_tile(overruled), in_tile(comments + overruled)):
        assert not j2k_coding(changed, whole=True).reversible


def test_near_and_point_transform_of_jpeg_ls() -> None:
    stream = near(RAMP, 3)
    assert jpeg_ls_coding(stream).error == 3
    scan = stream.index(b"\xff\xda") + 4
    assert jpeg_ls_coding(stream[: scan + 5] + b"\1" + stream[scan + 6 :]).error is None
    assert jpeg_ls_coding(b"").error is None
