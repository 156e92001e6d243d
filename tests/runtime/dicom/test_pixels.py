"""Stored values: containers, sign, overlay bits, byte orders, frames, and compressed frames that lie."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from promptray.runtime.dicom.facts import check_has_pixels, pixel_format
from promptray.runtime.dicom.pixels import DECODERS, stored_values
from promptray.runtime.dicom.read import read_dataset, transfer_syntax
from promptray.runtime.errors import ImageError
from tests import dicom_factory as factory

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


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.55", "1.2.840.10008.1.2.4.100", "1.2.3.4"])
def test_unknown_transfer_syntaxes_are_refused(syntax: str) -> None:
    dataset = read_dataset(factory.file())
    with pytest.raises(ImageError) as refusal:
        stored_values(dataset, UID(syntax), pixel_format(dataset), 0)
    assert refusal.value.code == "dicom.transfer-syntax"


def test_no_decoder_is_the_gpl_one() -> None:
    assert "1.2.840.10008.1.2.4.51" in DECODERS
    deep = (FILES / "JPGExtended.dcm").read_bytes()
    assert code_of(deep) == "dicom.transfer-syntax"


def jpeg_film(pixels: NDArray[np.uint8], **changes: Any) -> tuple[Dataset, bytes]:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    made = factory.dataset(pixels, BitsStored=8, HighBit=7, **changes)
    return made, stream.getvalue()


def encapsulated(made: Dataset, frames: list[bytes], syntax: Any = JPEGBaseline8Bit) -> bytes:
    made.PixelData = encapsulate(frames)
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    return factory.encode(made, syntax)


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
