"""The grey scale chain: each clause by hand-computed values, then the fast chain against the reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi, apply_windowing

from promptray.runtime.dicom import greyscale_reference as reference
from promptray.runtime.dicom.greyscale import to_grey
from promptray.runtime.dicom.photometric import LookupTable, Photometric
from promptray.runtime.errors import ImageError

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def table(entries: list[int], first: int = 0, bits: int = 16) -> LookupTable:
    return LookupTable(first, np.array(entries, np.uint16), bits)


def grey(stored: NDArray[np.integer], photometric: Photometric) -> list[int]:
    assert photometric.problem() is None
    fast = to_grey(stored, photometric)
    np.testing.assert_array_equal(fast, reference.to_grey_reference(stored, photometric))
    return [int(value) for value in fast.ravel()]


def line(*values: int, dtype: str = "u2") -> NDArray[np.integer]:
    return np.array([values], dtype)


def test_linear_window_of_c_11_2_1_2() -> None:
    # The example of the standard: c = 2048, w = 4096 maps 0 to ymin and 4095 to ymax.
    facts = Photometric(bits_stored=12, window=(2048.0, 4096.0))
    assert grey(line(0, 1, 2047, 2048, 4094, 4095), facts) == [0, 0, 127, 128, 255, 255]
    # c = 0, w = 100: -50 and below is ymin, above 49 is ymax.
    signed = Photometric(bits_stored=16, signed=True, window=(0.0, 100.0))
    assert grey(line(-51, -50, -49, 0, 49, 50, dtype="i2"), signed) == [0, 0, 3, 129, 255, 255]


def test_a_linear_window_of_width_1_is_a_threshold() -> None:
    facts = Photometric(window=(100.0, 1.0))
    assert grey(line(99, 100, 101), facts) == [0, 255, 255]


def test_linear_exact_window_of_c_11_2_1_3() -> None:
    facts = Photometric(window=(100.0, 200.0), voi_function="LINEAR_EXACT")
    assert grey(line(0, 1, 100, 199, 200, 201), facts) == [0, 1, 128, 254, 255, 255]
    narrow = Photometric(window=(100.0, 0.5), voi_function="LINEAR_EXACT")
    assert grey(line(99, 100, 101), narrow) == [0, 128, 255]


def test_sigmoid_window_of_c_11_2_1_3() -> None:
    facts = Photometric(window=(100.0, 100.0), voi_function="SIGMOID")
    expected = [round(255 / (1 + np.exp(-4 * (x - 100) / 100))) for x in (0, 50, 100, 150, 200)]
    assert grey(line(0, 50, 101, 150, 200), facts)[1::2] == expected[1::2]
    assert grey(line(0, 65535), Photometric(window=(30000.0, 1.0), voi_function="SIGMOID")) == [0, 255]


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("window", [(2048.0, 4096.0), (1000.5, 33.25), (-20.0, 5000.0), (3000.0, 1.0)])
def test_windows_equal_pydicom(function: str, window: tuple[float, float]) -> None:
    dataset = Dataset()
    dataset.PhotometricInterpretation, dataset.BitsStored, dataset.PixelRepresentation = "MONOCHROME2", 8, 0
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = *window, function
    values = RAMP.astype(np.float64)
    with np.errstate(over="ignore"):
        expected = apply_windowing(values, dataset)
    np.testing.assert_allclose(reference.WINDOWS[function](values, *window), expected, atol=1e-9)


def test_voi_lut_equals_pydicom_and_wins_over_the_window() -> None:
    entries = (np.arange(500) ** 1.5 * 5).astype(np.uint16)
    dataset, item = Dataset(), Dataset()
    dataset.PixelRepresentation = 0
    item.LUTDescriptor, item.LUTData = [500, 1000, 16], entries.tolist()
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    dataset.VOILUTSequence = [item]
    expected = reference.to_8_bit(apply_voi(RAMP, dataset) * (255.0 / 65535.0))
    facts = Photometric(voi_lut=LookupTable(1000, entries, 16), window=(5.0, 10.0))
    np.testing.assert_array_equal(to_grey(RAMP, facts), expected)


def test_tables_clamp_at_both_ends_and_use_their_stated_bits() -> None:
    facts = Photometric(voi_lut=table([10, 20, 255], first=5, bits=8))
    assert grey(line(0, 5, 6, 7, 8, 60000), facts) == [10, 10, 20, 255, 255, 255]
    wide = Photometric(voi_lut=table([0, 4095], first=0, bits=12))
    assert grey(line(0, 1), wide) == [0, 255]
    signed = Photometric(signed=True, voi_lut=table([0, 128, 255], first=-1, bits=8))
    assert grey(line(-2, -1, 0, 1, dtype="i2"), signed) == [0, 0, 128, 255]


def test_a_fractional_value_takes_the_entry_below_it_but_for_the_error_of_binary_arithmetic() -> None:
    facts = Photometric(rescale_slope=0.29, voi_lut=table([0, 100, 255], first=28, bits=8))
    assert 0.29 * 100 < 29
    assert grey(line(97, 99, 100, 101, 104), facts) == [0, 0, 100, 100, 255]


def test_modality_lut_replaces_the_rescale() -> None:
    facts = Photometric(
        modality_lut=table([100, 300, 200], first=1), rescale_slope=9.0, window=(200.5, 201.0)
    )
    assert grey(line(0, 1, 2, 3, 9), facts) == [0, 0, 255, 128, 128]


def test_fractional_and_negative_rescale() -> None:
    facts = Photometric(rescale_slope=0.684, rescale_intercept=200.0, window=(1600.0, 2800.0))
    value = 0.684 * 2000 + 200
    expected = int(((value - 1599.5) / 2799 + 0.5) * 255 + 0.5)
    assert grey(line(2000), facts) == [expected]
    falling = Photometric(bits_stored=12, rescale_slope=-1.0, rescale_intercept=4095.0)
    assert grey(line(0, 4095), falling) == [255, 0]


def test_monochrome1_is_inverted_once() -> None:
    for shape in (None, "INVERSE"):
        facts = Photometric("MONOCHROME1", 12, window=(2048.0, 4096.0), presentation_lut_shape=shape)
        assert grey(line(0, 4095), facts) == [255, 0]
    upright = Photometric("MONOCHROME2", 12, window=(2048.0, 4096.0), presentation_lut_shape="IDENTITY")
    assert grey(line(0, 4095), upright) == [0, 255]


def test_padding_is_black_and_left_out_of_the_full_range() -> None:
    assert grey(line(0, 100, 200), Photometric(padding=(0, 0))) == [0, 0, 255]
    assert grey(line(0, 100, 200), Photometric("MONOCHROME1", padding=(0, 0))) == [0, 255, 0]
    ranged = Photometric(padding=(5, 9))
    assert grey(line(4, 5, 7, 9, 10), ranged) == [0, 0, 0, 0, 255]


def test_an_image_of_one_value_has_no_full_range() -> None:
    for facts in (Photometric(), Photometric(padding=(1, 1))):
        for chain in (to_grey, reference.to_grey_reference):
            with pytest.raises(ImageError) as refusal:
                chain(line(7, 7, 1 if facts.padding else 7), facts)
            assert refusal.value.code == "image.constant"


def test_rounding_is_half_up() -> None:
    np.testing.assert_array_equal(reference.to_8_bit(np.array([0.5, 1.5, 2.4999, 254.5])), [1, 2, 2, 255])


@pytest.mark.parametrize(
    "facts",
    [
        Photometric("RGB"),  # type: ignore[arg-type]
        Photometric(bits_stored=0),
        Photometric(bits_stored=33),
        Photometric("MONOCHROME1", presentation_lut_shape="IDENTITY"),
        Photometric("MONOCHROME2", presentation_lut_shape="INVERSE"),
        Photometric(presentation_lut_shape="LIN OD"),  # type: ignore[arg-type]
        Photometric(voi_function="CUBIC"),  # type: ignore[arg-type]
        Photometric(rescale_slope=0.0),
        Photometric(rescale_slope=float("nan")),
        Photometric(rescale_intercept=float("inf")),
        Photometric(rescale_slope=1e300),
        Photometric(window=(0.0, 0.0)),
        Photometric(window=(0.0, 0.99)),
        Photometric(window=(0.0, -5.0), voi_function="SIGMOID"),
        Photometric(window=(float("nan"), 5.0)),
        Photometric(voi_lut=table([])),
        Photometric(voi_lut=table([1, 2], bits=7)),
        Photometric(modality_lut=table([1, 256], bits=8)),
    ],
)
def test_impossible_facts_have_a_problem(facts: Photometric) -> None:
    assert facts.problem()


FINITE = st.floats(-1e6, 1e6)
TABLES = st.builds(
    lambda first, entries, bits: LookupTable(first, np.array(entries, np.uint16) & ((1 << bits) - 1), bits),
    st.integers(-40000, 70000),
    st.lists(st.integers(0, 65535), min_size=1, max_size=40),
    st.integers(8, 16),
)


@st.composite
def images(draw: st.DrawFn) -> tuple[NDArray[np.integer], Photometric]:
    dtype = np.dtype(draw(st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4"])))
    bits = draw(st.integers(1, 8 * dtype.itemsize))
    signed = dtype.kind == "i"
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    stored = draw(arrays.arrays(dtype, shape, elements=st.integers(low, high)))
    padding = draw(st.none() | st.tuples(st.integers(low, high), st.integers(low, high)))
    function = draw(st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]))
    interpretation = draw(st.sampled_from(["MONOCHROME1", "MONOCHROME2"]))
    facts = Photometric(
        interpretation,
        bits,
        signed,
        draw(FINITE.filter(lambda slope: abs(slope) > 1e-6)),
        draw(FINITE),
        draw(st.none() | TABLES),
        draw(st.none() | st.tuples(FINITE, st.floats(1, 1e6))),
        function,
        draw(st.none() | TABLES),
        None if padding is None else (min(padding), max(padding)),
    )
    return stored, facts


@given(images())
@settings(deadline=None, max_examples=300)
def test_fast_chain_equals_reference(image: tuple[NDArray[np.integer], Photometric]) -> None:
    stored, facts = image
    assert facts.problem() is None
    outcomes = []
    for chain in (to_grey, reference.to_grey_reference):
        try:
            outcomes.append(chain(stored, facts))
        except ImageError as error:
            outcomes.append(np.array(error.code))
    np.testing.assert_array_equal(*outcomes)
