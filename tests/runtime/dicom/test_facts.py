"""Tags to facts: every tag the chain uses, right, absent and impossible."""

from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from promptray.runtime.dicom.facts import photometric_facts, pixel_format, pixel_spacing
from promptray.runtime.dicom.greyscale import to_grey
from promptray.runtime.dicom.photometric import Photometric
from promptray.runtime.dicom.pixels import stored_values
from promptray.runtime.dicom.read import read_dataset, transfer_syntax
from promptray.runtime.errors import ImageError
from promptray.runtime.frames import choose_frame
from tests import dicom_factory as factory


def facts_of(data: bytes, index: int = 0) -> Photometric:
    dataset = read_dataset(data)
    return photometric_facts(dataset, pixel_format(dataset), index)


def lut(descriptor: list[int], data: Any, vr: str = "US", first_vr: str = "US") -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", first_vr, descriptor)
    item.add_new("LUTData", vr, data)
    return item


def test_all_photometric_tags() -> None:
    facts = facts_of(
        factory.file(
            PhotometricInterpretation="MONOCHROME1",
            PresentationLUTShape="INVERSE",
            RescaleSlope="0.684",
            RescaleIntercept="200",
            WindowCenter=["1600", "5"],
            WindowWidth=["2800", "6"],
            VOILUTFunction="SIGMOID",
        )
    )
    assert facts.interpretation == "MONOCHROME1"
    assert facts.presentation_lut_shape == "INVERSE"
    assert (facts.rescale_slope, facts.rescale_intercept) == (0.684, 200.0)
    assert facts.window == (1600.0, 2800.0)  # the first of several
    assert facts.voi_function == "SIGMOID"


def test_tables_as_numbers_and_as_packed_bytes() -> None:
    words = np.arange(0, 4000, 40, dtype=np.uint16)
    for item in (
        lut([100, 7, 12], words.tolist()),
        lut([100, 7, 12], words.tobytes(), "OW"),
    ):
        for keyword in ("ModalityLUTSequence", "VOILUTSequence"):
            facts = facts_of(factory.file(**{keyword: [item]}))
            table = facts.modality_lut or facts.voi_lut
            assert table is not None
            assert (table.first, table.bits) == (7, 12)
            np.testing.assert_array_equal(table.entries, words)
    packed = facts_of(factory.file(VOILUTSequence=[lut([5, 0, 8], b"\1\2\3\4\5\0", "OW")])).voi_lut
    assert packed is not None
    np.testing.assert_array_equal(packed.entries, [1, 2, 3, 4, 5])


def test_a_modality_lut_beside_a_rescale_that_changes_nothing() -> None:
    table = [lut([3, 0, 8], [1, 2, 3])]
    facts = facts_of(factory.file(ModalityLUTSequence=table, RescaleSlope="1", RescaleIntercept="0"))
    assert facts.modality_lut is not None


def test_an_item_of_empty_elements_states_no_table() -> None:
    for item in (Dataset(), lut([], None)):
        facts = facts_of(factory.file(VOILUTSequence=[item], ModalityLUTSequence=[item]))
        assert (facts.voi_lut, facts.modality_lut) == (None, None)
        assert facts.window == (2048.0, 4096.0)


def test_single_bits_are_refused_as_a_mask() -> None:
    with pytest.raises(ImageError, match="mask or segmentation") as refusal:
        facts_of(factory.file(BitsAllocated=1, BitsStored=1, HighBit=0))
    assert refusal.value.code == "dicom.tags"


def test_a_frame_s_own_window_comes_before_the_table_of_the_data_set() -> None:
    window = {"WindowCenter": "7", "WindowWidth": "8"}
    frames = [group(FrameVOILUTSequence=window)]
    made = factory.dataset(
        VOILUTSequence=[lut([3, 0, 8], [1, 2, 3])], PerFrameFunctionalGroupsSequence=frames
    )
    facts = facts_of(factory.encode(made))
    assert (facts.window, facts.voi_lut) == ((7.0, 8.0), None)


def test_big_endian_table_bytes() -> None:
    item = lut([3, 0, 12], np.array([1, 2, 4095], ">u2").tobytes(), "OW")
    made = factory.dataset(VOILUTSequence=[item])
    made.PixelData = factory.ramp().astype(">u2").tobytes()
    table = facts_of(factory.encode(made, ExplicitVRBigEndian)).voi_lut
    assert table is not None
    np.testing.assert_array_equal(table.entries, [1, 2, 4095])


def test_a_table_of_65536_entries_states_0() -> None:
    facts = facts_of(factory.file(VOILUTSequence=[lut([0, 0, 16], bytes(131072), "OW")]))
    assert facts.voi_lut is not None
    assert facts.voi_lut.entries.size == 65536


def test_the_first_mapped_value_is_signed_where_its_input_is() -> None:
    signed = factory.ramp().astype(np.int16) - 2048
    item = lut([3, -2048, 8], [0, 1, 2], first_vr="SS")
    table = facts_of(factory.file(signed, ModalityLUTSequence=[item])).modality_lut
    assert table is not None
    assert table.first == -2048
    rescaled = facts_of(
        factory.file(
            RescaleSlope="1", RescaleIntercept="-1024", VOILUTSequence=[lut([3, 64512, 8], [0, 1, 2])]
        )
    )
    assert rescaled.voi_lut is not None
    assert rescaled.voi_lut.first == -1024


@pytest.mark.parametrize(
    ("value", "limit", "signed", "expected"),
    [
        (0, None, False, (0, 0)),
        (4000, 4095, False, (4000, 4095)),
        (4095, 4000, False, (4000, 4095)),
        (-2048, None, True, (-2048, -2048)),
        (63488, None, True, (-2048, -2048)),  # a wrong VR: US instead of SS
    ],
)
def test_padding(value: int, limit: int | None, signed: bool, expected: tuple[int, int]) -> None:
    made = factory.dataset(factory.ramp().astype(np.int16) - 2048 if signed else None)
    for keyword, number in (("PixelPaddingValue", value), ("PixelPaddingRangeLimit", limit)):
        if number is not None:
            made.add_new(keyword, "SS" if number < 0 else "US", number)
    assert facts_of(factory.encode(made)).padding == expected


def test_a_padding_range_across_zero_of_unsigned_pixels_is_refused() -> None:
    """Taken as patterns, -5 to 5 would be 65531 to 5: nearly every pixel."""
    made = factory.dataset()
    made.add_new("PixelPaddingValue", "SS", -5)
    made.add_new("PixelPaddingRangeLimit", "SS", 5)
    with pytest.raises(ImageError, match="spans zero") as refusal:
        facts_of(factory.encode(made))
    assert refusal.value.code == "dicom.tags"


def enhanced(shared: Dataset, frames: list[Dataset]) -> bytes:
    pixels = np.stack([factory.ramp()] * len(frames))
    return factory.file(
        pixels, SharedFunctionalGroupsSequence=[shared], PerFrameFunctionalGroupsSequence=frames
    )


def group(**macros: dict[str, Any]) -> Dataset:
    made = Dataset()
    for sequence, values in macros.items():
        item = Dataset()
        for keyword, value in values.items():
            setattr(item, keyword, value)
        setattr(made, sequence, [item])
    return made


def test_functional_groups_of_a_frame_come_before_shared_ones_and_the_data_set() -> None:
    window = {"WindowCenter": "7", "WindowWidth": "8"}
    shared = group(
        PixelValueTransformationSequence={"RescaleSlope": "2", "RescaleIntercept": "3"},
        PixelMeasuresSequence={"PixelSpacing": [0.5, 0.25]},
    )
    data = enhanced(shared, [group(FrameVOILUTSequence=window), group()])
    first, second = facts_of(data, 0), facts_of(data, 1)
    assert first.window == (7.0, 8.0)
    assert second.window == (2048.0, 4096.0)
    assert (first.rescale_slope, first.rescale_intercept) == (2.0, 3.0)
    assert pixel_spacing(read_dataset(data), 0) == ((0.5, 0.25), "PixelSpacing")


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_functional_groups_of_other_frames_than_there_are_are_refused(count: int) -> None:
    inverted = group(PixelValueTransformationSequence={"RescaleSlope": "-1", "RescaleIntercept": "4095"})
    pixels = np.stack([factory.ramp()] * 3)
    data = factory.file(pixels, PerFrameFunctionalGroupsSequence=[inverted] * count)
    for index in range(3):
        with pytest.raises(ImageError, match="PerFrameFunctionalGroupsSequence") as refusal:
            facts_of(data, index)
        assert refusal.value.code == "dicom.tags"
    whole = factory.file(pixels, PerFrameFunctionalGroupsSequence=[inverted] * 3)
    assert [facts_of(whole, index).rescale_slope for index in range(3)] == [-1.0] * 3


def test_pixel_spacing_and_where_it_comes_from() -> None:
    assert pixel_spacing(read_dataset(factory.file()), 0) == (None, None)
    detector = read_dataset(factory.file(ImagerPixelSpacing=[0.15, 0.16]))
    assert pixel_spacing(detector, 0) == ((0.15, 0.16), "ImagerPixelSpacing")
    film = read_dataset(factory.file(NominalScannedPixelSpacing=[0.1, 0.1], PixelSpacing=None))
    assert pixel_spacing(film, 0) == ((0.1, 0.1), "NominalScannedPixelSpacing")
    assert pixel_spacing(read_dataset(factory.file(PixelSpacing=[0, 0])), 0) == (None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"Rows": None},
        {"Rows": 0},
        {"Columns": None},
        {"BitsAllocated": 1},
        {"BitsAllocated": 12},
        {"BitsStored": 0},
        {"BitsStored": 17},
        {"HighBit": 3},
        {"HighBit": 16},
        {"PixelRepresentation": 2},
        {"NumberOfFrames": "0"},
        {"NumberOfFrames": "-1"},
        {"PhotometricInterpretation": None},
        {"WindowCenter": None},
        {"WindowWidth": "0"},
        {"WindowCenter": ["1", "2"]},
        {"RescaleSlope": "0"},
        {"RescaleSlope": ["1", "2"]},
        {"VOILUTFunction": "CUBIC"},
        {"VOILUTFunction": ["LINEAR", "SIGMOID"]},
        {"PresentationLUTShape": "INVERSE"},
        {"ModalityLUTSequence": [lut([3, 0, 8], [1, 2, 3])], "RescaleSlope": "2"},
        {"ModalityLUTSequence": [lut([3, 0, 8], [1, 2, 3])], "RescaleIntercept": "-1024"},
        {"PresentationLUTSequence": [lut([3, 0, 8], [1, 2, 3])]},
        {"VOILUTSequence": [lut([3, 0, 8], [1, 2])]},
        {"VOILUTSequence": [lut([3, 0, 8], None)]},
        {"VOILUTSequence": [lut([3, 0, 8], b"", "OW")]},
        {"VOILUTSequence": [lut([3, 0, 8], [1, 2, 300])]},
        {"ModalityLUTSequence": [lut([3, 0], [1, 2, 3])]},
    ],
)
def test_impossible_tags_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ImageError) as refusal:
        facts_of(factory.file(**changes))
    assert refusal.value.code in ("dicom.tags", "image.broken")


@pytest.mark.parametrize(
    "changes",
    [
        {"SamplesPerPixel": 3},
        {"PhotometricInterpretation": "RGB"},
        {"PhotometricInterpretation": "PALETTE COLOR"},
    ],
)
def test_colour_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ImageError) as refusal:
        facts_of(factory.file(**changes))
    assert refusal.value.code == "image.colour"


@pytest.mark.parametrize(("slope", "intercept"), [("1", "1e17"), ("1e-20", "1"), ("1", "-4e13")])
def test_a_slope_that_vanishes_beside_its_intercept_is_refused(slope: str, intercept: str) -> None:
    with pytest.raises(ImageError, match="intercept is absurd"):
        facts_of(factory.file(RescaleSlope=slope, RescaleIntercept=intercept))


@pytest.mark.parametrize("written", [b"20_48 ", b"2_0.5 ", b"0x800 "])
def test_a_number_is_written_as_the_standard_has_it(written: bytes) -> None:
    """Python itself reads digits with underscores."""
    data = factory.file(WindowCenter="987654")
    assert data.count(b"987654") == 1
    with pytest.raises(ImageError) as refusal:
        facts_of(data.replace(b"987654", written.ljust(6)))
    assert refusal.value.code == "dicom.tags"


def test_an_absurd_size_is_refused_by_its_limit() -> None:
    with pytest.raises(ImageError, match="67108864") as refusal:
        facts_of(factory.file(Rows=65535, Columns=65535))
    assert refusal.value.code == "image.too-large"


@pytest.mark.parametrize(("frames", "frame"), [(3, None), (3, 0), (3, 4), (1, 2), (1, -1)])
def test_a_frame_is_never_guessed(frames: int, frame: int | None) -> None:
    with pytest.raises(ImageError, match=f"1 to {frames}") as refusal:
        choose_frame(frames, frame)
    assert refusal.value.code == "dicom.frame"


def test_frames_are_counted_from_1() -> None:
    assert [choose_frame(1, None), choose_frame(1, 1), choose_frame(3, 3)] == [0, 0, 2]


def test_a_whole_object_through_the_chain() -> None:
    pixels = factory.ramp()
    made = factory.dataset(pixels, PhotometricInterpretation="MONOCHROME1")
    dataset = read_dataset(factory.encode(made, ExplicitVRLittleEndian))
    syntax, stated = transfer_syntax(dataset)
    form = pixel_format(dataset)
    grey = to_grey(stored_values(dataset, syntax, form, 0), photometric_facts(dataset, form, 0))
    assert stated
    np.testing.assert_array_equal(grey, np.floor(255.5 - pixels / 4095 * 255).astype(np.uint8))
