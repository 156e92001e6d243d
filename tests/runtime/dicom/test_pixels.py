"""Stored values: containers, sign, overlay bits, byte orders, frames, and compressed frames that lie."""

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
from pydicom.config import IGNORE
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended, get_frame
from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from promptray.runtime.dicom.facts import check_has_pixels, pixel_format
from promptray.runtime.dicom.pixels import DECODERS, stored_values
from promptray.runtime.dicom.read import read_dataset, transfer_syntax
from promptray.runtime.errors import ImageError
from tests import dicom_factory as factory
from tests.runtime.dicom.jpeg_encoder import Lossless, encode_extended

ENCAPSULATED_UNCOMPRESSED = UID("1.2.840.10008.1.2.1.98")
DEFLATED_FRAMES = UID("1.2.840.10008.1.2.8.1")
FILES = Path(__file__).parents[2] / "data" / "dicom" / "files"


def decode(data: bytes, index: int = 0) -> NDArray[np.integer]:
    dataset = read_dataset(data)
    check_has_pixels(dataset)
    syntax, _ = transfer_syntax(dataset)
    return stored_values(dataset, syntax, pixel_format(dataset), index)


def code_of(data: bytes, index: int = 0) -> str:
    with pytest.raises(ImageError) as refusal:
        decode(data, index)
    return refusal.value.code


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
)
@pytest.mark.parametrize(
    ("dtype", "stored"), [("u1", 8), ("u1", 5), ("i1", 8), ("u2", 16), ("u2", 12), ("i2", 12), ("u4", 20)]
)
def test_native_pixels_in_every_container(syntax: Any, dtype: str, stored: int) -> None:
    kind = np.dtype(dtype).kind
    low, high = (-(1 << stored - 1), (1 << stored - 1) - 1) if kind == "i" else (0, (1 << stored) - 1)
    pixels = np.random.default_rng(0).integers(low, high, (33, 35), dtype=dtype, endpoint=True)
    made = factory.dataset(pixels, BitsStored=stored, HighBit=stored - 1)
    read = decode(factory.encode(made, syntax))
    assert read.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read, pixels)


@pytest.mark.parametrize("dtype", ["u2", "i2"])
def test_big_endian(dtype: str) -> None:
    pixels = np.arange(33 * 35, dtype=dtype).reshape(33, 35)
    made = factory.dataset(pixels, BitsStored=16, HighBit=15)
    made.PixelData = pixels.astype(f">{dtype}").tobytes()
    np.testing.assert_array_equal(decode(factory.encode(made, ExplicitVRBigEndian)), pixels)


def test_bits_above_the_stored_ones_are_overlays_and_removed() -> None:
    pixels = factory.ramp()
    overlaid = pixels | np.uint16(0xA000)
    np.testing.assert_array_equal(decode(factory.file(overlaid)), pixels)
    signed = pixels.astype(np.int16) - 2048
    packed = (signed & 0x0FFF).astype(np.uint16) | np.uint16(0x5000)
    made = factory.dataset(packed, PixelRepresentation=1)
    np.testing.assert_array_equal(decode(factory.encode(made)), signed)


def test_rle_keeps_overlays_and_they_are_removed_there_too() -> None:
    pixels = factory.ramp().astype(np.int16) - 2048
    packed = (pixels & 0x0FFF).astype(np.uint16) | np.uint16(0x5000)
    made = factory.dataset(packed, PixelRepresentation=1)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    np.testing.assert_array_equal(decode(factory.encode(made, RLELossless)), pixels)


@pytest.mark.parametrize("vr", ["OB", "OW"])
def test_big_endian_bytes_swapped_within_words(vr: str) -> None:
    pixels = (factory.ramp() >> 4).astype(np.uint8)
    made = factory.dataset(pixels, BitsStored=8, HighBit=7)
    made["PixelData"].VR = vr
    if vr == "OW":
        made.PixelData = np.frombuffer(made.PixelData, "u2").byteswap().tobytes()
    np.testing.assert_array_equal(decode(factory.encode(made, ExplicitVRBigEndian)), pixels)


def test_stored_bits_that_do_not_begin_at_bit_0() -> None:
    pixels = factory.ramp()
    shifted = pixels << 4 | np.uint16(0x7)
    np.testing.assert_array_equal(decode(factory.file(shifted, HighBit=15)), pixels)


def test_frames() -> None:
    pixels = np.stack([factory.ramp() // (number + 1) for number in range(3)])
    for index in range(3):
        np.testing.assert_array_equal(decode(factory.file(pixels), index), pixels[index])


def test_pixel_data_that_end_early_are_refused() -> None:
    made = factory.dataset()
    made.PixelData = made.PixelData[:-2]
    assert code_of(factory.encode(made)) == "image.broken"
    assert code_of(factory.file()[:-2]) == "image.broken"


def test_a_size_tag_that_lies_is_refused() -> None:
    for changes in ({"Columns": 47}, {"Rows": 39}, {"Columns": 24, "Rows": 79}, {"Columns": 49}):
        assert code_of(factory.file(**changes)) == "image.broken"
    made = factory.dataset()
    made.PixelData += bytes(2)
    np.testing.assert_array_equal(decode(factory.encode(made)), factory.ramp())


@pytest.mark.parametrize(
    ("syntax", "named"),
    [
        ("1.2.840.10008.1.2.4.55", "JPEG Full Progression"),
        ("1.2.840.10008.1.2.4.92", "JPEG 2000 Part 2"),
        ("1.2.840.10008.1.2.4.94", "JPIP Referenced"),
        ("1.2.840.10008.1.2.4.100", "MPEG2"),
        ("1.2.840.10008.1.2.4.107", "HEVC"),
        ("1.2.840.10008.1.2.4.110", "JPEG XL Lossless"),
        ("1.2.840.10008.1.2.4.111", "JPEG XL JPEG Recompression"),
        ("1.2.840.10008.1.2.4.112", "JPEG XL"),
        ("1.2.840.10008.1.2.4.204", "JPIP HTJ2K"),
        ("1.2.840.10008.1.2.6.1", "RFC 2557"),
        ("1.2.840.10008.5.1.4.1.1.2", "no transfer syntax of the standard"),
        ("1.2.3.4", "no transfer syntax of the standard"),
        (factory.NAME, "no transfer syntax of the standard"),
    ],
)
def test_unknown_transfer_syntaxes_are_refused_by_name(syntax: str, named: str) -> None:
    dataset, unknown = read_dataset(factory.file()), UID(syntax, validation_mode=IGNORE)
    with pytest.raises(ImageError, match=named) as refusal:
        stored_values(dataset, unknown, pixel_format(dataset), 0)
    assert refusal.value.code == "dicom.transfer-syntax"
    assert refusal.value.cure
    assert factory.NAME not in str(refusal.value)


def test_every_pixel_transfer_syntax_of_the_standard_is_decoded_or_refused_by_name() -> None:
    for syntax in AllTransferSyntaxes:
        if syntax not in DECODERS:
            with pytest.raises(ImageError) as refusal:
                stored_values(read_dataset(factory.file()), syntax, pixel_format(factory.dataset()), 0)
            assert refusal.value.found == syntax.name
    assert not DECODERS.keys() - {*AllTransferSyntaxes, ENCAPSULATED_UNCOMPRESSED, DEFLATED_FRAMES}


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
    words = ((pixels & 0x0FFF) | 0x5000).astype(np.uint16)
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
