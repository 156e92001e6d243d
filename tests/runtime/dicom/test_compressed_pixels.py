"""Stored values of compressed frames: right in every container, refused where a frame lies or ends early."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import jpeg_ls
import numpy as np
import pytest
from numpy.typing import NDArray
from openjpeg.utils import encode_array as encode_j2k
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended, get_frame
from pydicom.uid import (
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from promptray.runtime.dicom.facts import pixel_format
from promptray.runtime.dicom.pixels import stored_values
from promptray.runtime.dicom.read import read_dataset, transfer_syntax
from promptray.runtime.errors import ImageError
from promptray.runtime.limits import MAX_SLOW_PIXELS
from tests import dicom_factory as factory
from tests.runtime.dicom.decoding import code_of, decode
from tests.runtime.dicom.jpeg_encoder import Lossless, encode_extended

ENCAPSULATED_UNCOMPRESSED = UID("1.2.840.10008.1.2.1.98")
DEFLATED_FRAMES = UID("1.2.840.10008.1.2.8.1")
FILES = Path(__file__).parents[2] / "data" / "dicom" / "files"


def jpeg_film(pixels: NDArray[np.uint8], **changes: Any) -> tuple[Dataset, bytes]:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    made = factory.dataset(pixels, BitsStored=8, HighBit=7, **changes)
    return made, stream.getvalue()


def encapsulated(made: Dataset, frames: list[bytes], syntax: Any = JPEGBaseline8Bit) -> bytes:
    made.PixelData = encapsulate(frames)
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    if syntax == DEFLATED_FRAMES:  # which pydicom does not write
        data = factory.encode(made, ENCAPSULATED_UNCOMPRESSED)
        return data.replace(ENCAPSULATED_UNCOMPRESSED.encode(), DEFLATED_FRAMES.encode() + b"\0")
    return factory.encode(made, syntax)


def with_extended_offsets(made: Dataset, frames: list[bytes], **changes: bytes) -> bytes:
    made.PixelData, made.ExtendedOffsetTable, made.ExtendedOffsetTableLengths = encapsulate_extended(frames)
    for keyword, value in changes.items():
        setattr(made, keyword, value)
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    return factory.encode(made, ENCAPSULATED_UNCOMPRESSED)


def inflatable(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4"])
def test_deflated_and_encapsulated_uncompressed_frames(dtype: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 100, (3, 33, 35)).astype(dtype)
    made = factory.dataset(pixels)
    frames = [frame.tobytes() for frame in pixels]
    for syntax, encode in ((DEFLATED_FRAMES, inflatable), (ENCAPSULATED_UNCOMPRESSED, bytes)):
        data = encapsulated(made, [encode(frame) for frame in frames], syntax)
        for index in range(3):
            read = decode(data, index)
            assert read.dtype == np.dtype(dtype)
            np.testing.assert_array_equal(read, pixels[index])


def test_deflated_frames_that_are_damaged_or_expand_too_far_are_refused() -> None:
    made, whole = factory.dataset(), factory.ramp().tobytes()
    for frame in (
        inflatable(whole)[:-4],
        inflatable(whole[:-2]),
        inflatable(whole + bytes(2)),
        inflatable(whole + bytes(10_000_000)),
        b"\xff" * 64,
    ):
        assert code_of(encapsulated(made, [frame], DEFLATED_FRAMES)) == "image.broken"
    for frame in (whole[:-2], whole + bytes(2)):
        assert code_of(encapsulated(made, [frame], ENCAPSULATED_UNCOMPRESSED)) == "image.broken"


def test_frames_by_an_extended_offset_table() -> None:
    pixels = np.stack([factory.ramp(33, 35) // (number + 1) for number in range(3)])
    made, frames = factory.dataset(pixels), [frame.tobytes() for frame in pixels]
    data = with_extended_offsets(made, frames)
    for index in range(3):
        np.testing.assert_array_equal(decode(data, index), pixels[index])
    size = len(frames[0])
    for changes in (
        {"ExtendedOffsetTable": struct.pack("<3Q", 0, 2, 4)},  # into the middle of a fragment
        {"ExtendedOffsetTable": struct.pack("<3Q", 0, 1 << 40, 1 << 63)},
        {"ExtendedOffsetTable": struct.pack("<2Q", 0, size + 8)},
        {"ExtendedOffsetTableLengths": struct.pack("<3Q", size, size - 2, size)},
        {"ExtendedOffsetTableLengths": struct.pack("<3Q", size, 1 << 40, size)},
        {"ExtendedOffsetTableLengths": b""},
    ):
        assert code_of(with_extended_offsets(factory.dataset(pixels), frames, **changes), 1) == "image.broken"


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
@pytest.mark.parametrize(("dtype", "stored"), [("u1", 8), ("u1", 6), ("u2", 16), ("u2", 12), ("i2", 16)])
def test_lossless_jpeg_in_every_container(syntax: UID, dtype: str, stored: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 1 << stored, (33, 35)).astype(dtype)
    made = factory.dataset(pixels, BitsStored=stored, HighBit=stored - 1)
    read = decode(encapsulated(made, [Lossless(stored).encode(pixels.astype(int) & 0xFFFF)], syntax))
    assert read.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read, pixels)


def test_lossless_jpeg_with_overlay_bits_signs_and_shifts() -> None:
    pixels = factory.ramp(33, 35)
    signed = pixels.astype(np.int32) - 2048
    container, twelve = Lossless(16), Lossless(12)
    for coder, words, expected, changes in (
        (container, pixels | 0xA000, pixels, {}),
        (container, pixels << 4 | 7, pixels, {"HighBit": 15}),
        (container, signed & 0xFFFF, signed, {"PixelRepresentation": 1}),
        (twelve, signed & 0x0FFF, signed, {"PixelRepresentation": 1}),
        (twelve, pixels, pixels, {"BitsStored": 16, "HighBit": 15}),  # shallower than stated: harmless
    ):
        made = factory.dataset(pixels, **changes)
        read = decode(encapsulated(made, [coder.encode(words)], JPEGLosslessSV1))
        np.testing.assert_array_equal(read, expected)
    for changes in (
        {"HighBit": 15},  # the frame has no bits 12 to 15
        {"BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1},  # where its sign is, nobody knows
    ):
        made = factory.dataset(pixels, **changes)
        assert code_of(encapsulated(made, [twelve.encode(pixels)], JPEGLosslessSV1)) == "image.broken"


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("signed", [False, True])
def test_overlay_bits_in_other_lossless_frames_are_removed(syntax: UID, signed: bool) -> None:
    pixels = factory.ramp(33, 35).astype(np.int32) - (2048 if signed else 0)
    words = ((pixels & 0x0FFF) | 0xA000).astype(np.uint16)
    encode = jpeg_ls.encode_array if syntax == JPEGLSLossless else encode_j2k
    made = factory.dataset(words, PixelRepresentation=int(signed))
    np.testing.assert_array_equal(decode(encapsulated(made, [bytes(encode(words))], syntax)), pixels)
    made = factory.dataset(words >> 4, HighBit=15)
    assert code_of(encapsulated(made, [bytes(encode(words >> 4))], syntax)) == "image.broken"


def test_jpeg_of_12_bits() -> None:
    blocks = np.zeros((6, 64), int)
    blocks[:, 0] = [-2048, -1024, 0, 512, 1024, 2040]
    frame = encode_extended(blocks, (16, 24), np.full(64, 8))
    made = factory.dataset(np.zeros((16, 24), np.uint16))
    read = decode(encapsulated(made, [frame], JPEGExtended12Bit))
    assert read[::8, ::8].ravel().tolist() == [0, 1024, 2048, 2560, 3072, 4088]
    assert code_of(encapsulated(made, [frame], JPEGBaseline8Bit)) == "image.broken"
    signed = factory.dataset(np.zeros((16, 24), np.int16))
    read = decode(encapsulated(signed, [frame], JPEGExtended12Bit))
    assert read[::8, ::8].ravel().tolist() == [0, 1024, -2048, -1536, -1024, -8]


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEGLosslessSV1, JPEG2000Lossless])
@pytest.mark.parametrize(("depth", "stored"), [(12, 8), (12, 10), (12, 11), (12, 14), (8, 12)])
def test_a_frame_of_another_depth_than_bits_stored_is_refused(syntax: UID, depth: int, stored: int) -> None:
    words = factory.ramp(33, 35, bits=depth)
    encode = {
        JPEGLSLossless: lambda: jpeg_ls.encode_array(words.astype(np.min_scalar_type(words.max()))),
        JPEGLosslessSV1: lambda: Lossless(depth).encode(words),
        JPEG2000Lossless: lambda: encode_j2k(words, depth),
    }
    frame = bytes(encode[syntax]())
    for bits, code in ((depth, None), (16, None), (stored, "image.broken")):
        made = encapsulated(factory.dataset(words, BitsStored=bits, HighBit=bits - 1), [frame], syntax)
        if code:
            assert code_of(made) == code
        else:
            np.testing.assert_array_equal(decode(made), words)


def test_jpeg_of_12_bits_holds_9_to_12_bits_only() -> None:
    blocks = np.zeros((6, 64), int)
    blocks[:, 0] = -2048  # black
    frame = encode_extended(blocks, (16, 24), np.full(64, 8))
    for stored in range(8, 17):
        made = factory.dataset(np.zeros((16, 24), np.uint16), BitsStored=stored, HighBit=stored - 1)
        data = encapsulated(made, [frame], JPEGExtended12Bit)
        if stored in (8, 13, 14, 15):
            assert code_of(data) == "image.broken"
        else:
            assert decode(data).shape == (16, 24)


def test_frames_that_no_library_decodes_have_their_own_size_limit() -> None:
    lossless = Lossless(12).encode(factory.ramp(16, 24))
    extended = encode_extended(np.zeros((6, 64), int), (16, 24), np.full(64, 8))
    native = struct.pack(">HH", 16, 24)
    for frame, syntax in ((lossless, JPEGLosslessSV1), (extended, JPEGExtended12Bit), (b"\0\0", RLELossless)):
        for rows, code in ((8192, "image.broken"), (8193, "image.too-large")):
            stretched = frame.replace(native, struct.pack(">HH", rows, 4096), 1)
            made = factory.dataset(factory.ramp(16, 24), Rows=rows, Columns=4096)
            with pytest.raises(ImageError) as refusal:
                decode(encapsulated(made, [stretched], syntax))
            assert refusal.value.code == code
            assert code == "image.broken" or str(MAX_SLOW_PIXELS) in str(refusal.value)


def test_jpeg_of_8_bits_in_a_16_bit_container() -> None:
    pixels = (factory.ramp(64, 80) >> 4).astype(np.uint8)
    _, frame = jpeg_film(pixels)
    made = factory.dataset(pixels.astype(np.uint16), BitsStored=8, HighBit=7)
    for syntax in (JPEGBaseline8Bit, JPEGExtended12Bit):
        read = decode(encapsulated(made, [frame], syntax))
        assert read.dtype == np.uint16
        np.testing.assert_array_equal(read, np.asarray(Image.open(io.BytesIO(frame))))


def test_a_frame_of_another_process_than_its_transfer_syntax_is_refused() -> None:
    pixels = (factory.ramp(64, 80) >> 4).astype(np.uint8)
    made, frame = jpeg_film(pixels)
    assert code_of(encapsulated(made, [frame], JPEGLossless)) == "image.broken"
    assert code_of(encapsulated(made, [frame], JPEGLSLossless)) == "image.broken"
    assert code_of(encapsulated(made, [frame], JPEG2000Lossless)) == "image.broken"


def test_jpeg_frames_equal_libjpeg_turbo() -> None:
    pixels = (factory.ramp(64, 80) >> 4).astype(np.uint8)
    made, frame = jpeg_film(pixels)
    expected = np.asarray(Image.open(io.BytesIO(frame)))
    np.testing.assert_array_equal(decode(encapsulated(made, [frame])), expected)


def test_a_frame_that_contradicts_the_header_is_refused() -> None:
    pixels = (factory.ramp(64, 80) >> 4).astype(np.uint8)
    made, frame = jpeg_film(pixels, Rows=63)
    assert code_of(encapsulated(made, [frame])) == "image.broken"
    made, frame = jpeg_film(pixels)
    for cut in (1, 2, 10, len(frame) // 2, len(frame) - 3, len(frame)):
        assert code_of(encapsulated(made, [frame[: len(frame) - cut] or b"\0\0"])) == "image.broken"


@pytest.mark.parametrize(
    ("name", "syntax"),
    [
        ("MR_small_jpeg_ls_lossless.dcm", JPEGLSLossless),
        ("emri_small_jpeg_2k_lossless.dcm", JPEG2000Lossless),
        ("MR_small_RLE.dcm", RLELossless),
    ],
)
def test_a_truncated_compressed_frame_is_refused(name: str, syntax: Any) -> None:
    dataset = read_dataset((FILES / name).read_bytes())
    assert transfer_syntax(dataset) == (syntax, True)
    pixels = pixel_format(dataset)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=pixels.frames)
    for kept in np.linspace(2, len(frame) - 6, 12).astype(int):
        dataset.PixelData = encapsulate([frame[:kept]] * pixels.frames)
        with pytest.raises(ImageError) as refusal:
            stored_values(dataset, syntax, pixels, 0)
        assert refusal.value.code == "image.broken", kept


def test_a_jpeg_2000_header_of_absurd_size_is_refused_before_decoding() -> None:
    data = (FILES / "emri_small_jpeg_2k_lossless.dcm").read_bytes()
    start = data.index(b"\xff\x4f\xff\x51") + 8
    size = struct.pack(">II", 1 << 20, 1 << 20)
    assert code_of(data[:start] + size + data[start + 8 :]) == "image.broken"


@pytest.mark.parametrize("name", ["emri_small_jpeg_2k_lossless.dcm", "MR_small_jpeg_ls_lossless.dcm"])
def test_a_frame_with_its_middle_missing_is_refused(name: str) -> None:
    dataset = read_dataset((FILES / name).read_bytes())
    (syntax, _), pixels = transfer_syntax(dataset), pixel_format(dataset)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=pixels.frames)
    for kept in (0.3, 0.6, 0.9):
        cut = int(len(frame) * kept) // 2 * 2
        dataset.PixelData = encapsulate([frame[:cut] + b"\xff\xd9"] * pixels.frames)
        with pytest.raises(ImageError) as refusal:
            stored_values(dataset, syntax, pixels, 0)
        assert refusal.value.code == "image.broken"


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def test_a_jpeg_2000_frame_in_boxes_is_decoded_from_the_stream_that_was_checked() -> None:
    pixels = factory.ramp(33, 35)
    small, large = bytes(encode_j2k(pixels)), bytes(encode_j2k(factory.ramp(330, 350)))
    signature = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    made = factory.dataset(pixels)
    stream = struct.pack(">I4sQ", 1, b"jp2c", 16 + len(small)) + small  # a box with a long length
    for frame in (
        signature + box(b"jp2c", small),
        signature + stream,
        signature + box(b"uuid", large) + stream,
    ):
        np.testing.assert_array_equal(decode(encapsulated(made, [frame], JPEG2000Lossless)), pixels)
    for frame in (
        signature + box(b"uuid", small) + box(b"jp2c", large),  # the first header found is not the one in use
        signature,
        signature + struct.pack(">I4s", 4, b"jp2h") + small,
        box(b"free", b"") * 200 + box(b"jp2c", small),
    ):
        assert code_of(encapsulated(made, [frame], JPEG2000Lossless)) == "image.broken"
