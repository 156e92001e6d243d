"""Stored values: containers, sign, overlay bits, byte orders, frames; every transfer syntax or its name."""

from typing import Any

import numpy as np
import pytest
from pydicom.config import IGNORE
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from promptray.runtime.dicom.facts import pixel_format
from promptray.runtime.dicom.pixels import DECODERS, stored_values
from promptray.runtime.dicom.read import read_dataset
from promptray.runtime.errors import ImageError
from tests import dicom_factory as factory
from tests.runtime.dicom.decoding import code_of, decode

ENCAPSULATED_UNCOMPRESSED = UID("1.2.840.10008.1.2.1.98")
DEFLATED_FRAMES = UID("1.2.840.10008.1.2.8.1")


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


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("fragments", [1, 2])
def test_fragments_under_a_native_syntax_are_refused(syntax: Any, fragments: int) -> None:
    """Their headers, 8 bytes each, would shift every pixel."""
    pixels = factory.ramp(64, 2048)
    made = factory.dataset(pixels)
    made.PixelData = encapsulate([pixels.tobytes()], fragments_per_frame=fragments, has_bot=False)
    data = factory.encode(made, syntax)  # pydicom states the length
    assert code_of(data) == "image.broken"
    stated = len(made.PixelData).to_bytes(4, "little")
    place = data.rindex(stated, 0, -len(made.PixelData))
    undefined = data[:place] + b"\xff" * 4 + data[place + 4 :] + bytes.fromhex("feffdde000000000")
    assert code_of(undefined) == "image.broken"


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
