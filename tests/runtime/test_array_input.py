"""NumPy arrays: 8-bit grey as it is, other integers with their meaning, everything else refused."""

import numpy as np
import pytest
from numpy.typing import NDArray

from promptray.runtime.array_input import grey_from_array
from promptray.runtime.dicom.greyscale import to_grey
from promptray.runtime.dicom.photometric import Photometric
from promptray.runtime.errors import ImageError
from tests.dicom_factory import ramp


def test_uint8_is_the_picture_itself() -> None:
    array = np.arange(60, dtype=np.uint8).reshape(6, 10)[::-1, ::2]
    grey = grey_from_array(array)
    np.testing.assert_array_equal(grey, array)
    assert grey.flags.c_contiguous
    assert not np.shares_memory(grey, array)


@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", ">u2", "<i2", ">i2", "<u4", ">i4"])
def test_integers_go_through_the_grey_scale_chain(dtype: str) -> None:
    array = (ramp() % 100).astype(dtype)
    native = array.astype(array.dtype.newbyteorder("="))
    facts = Photometric(
        "MONOCHROME1", min(12, 8 * native.dtype.itemsize), native.dtype.kind == "i", window=(50.0, 80.0)
    )
    grey = grey_from_array(array, facts)
    np.testing.assert_array_equal(grey, to_grey(native, facts))
    assert not np.array_equal(grey, native)


def test_a_strided_view_gives_the_same_grey_as_its_copy() -> None:
    view = ramp()[::-2, 1::3]
    facts = Photometric(bits_stored=12)
    np.testing.assert_array_equal(grey_from_array(view, facts), grey_from_array(view.copy(), facts))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4)),
        np.full((4, 4), np.nan),
        np.zeros((4, 4), np.float16),
        np.zeros((4, 4), bool),
        np.zeros((4, 4), np.int64),
        np.zeros((4, 4), complex),
        np.zeros((4, 4), object),
        np.zeros((4, 4), "U3"),
        np.zeros((4, 4), "M8[s]"),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((1, 4, 4), np.uint8),
        np.zeros(16, np.uint8),
        np.zeros((0, 4), np.uint8),
        np.array(3, np.uint8),
        np.zeros((4, 4), [("a", "u1")]),
        np.ma.masked_array(np.zeros((4, 4), np.uint8), mask=np.eye(4, dtype=bool)),
        np.ma.masked_array(np.zeros((4, 4), np.uint8)),
    ],
)
@pytest.mark.parametrize("facts", [None, Photometric()])
def test_what_is_no_grey_image_is_refused(array: NDArray[np.generic], facts: Photometric | None) -> None:
    with pytest.raises(ImageError) as refusal:
        grey_from_array(array, facts)
    assert refusal.value.code == "image.array"


@pytest.mark.parametrize(
    ("array", "facts"),
    [
        (np.zeros((4, 4), np.uint16), None),
        (np.zeros((4, 4), np.int8), None),
        (np.full((4, 4), 5000, np.uint16), Photometric(bits_stored=12)),
        (np.full((4, 4), -1, np.int16), Photometric(bits_stored=12)),
        (np.full((4, 4), 3000, np.int16), Photometric(bits_stored=12, signed=True)),
        (np.zeros((4, 4), np.uint16), Photometric(window=(1.0, 0.0))),
    ],
)
def test_values_without_a_possible_meaning_are_refused(
    array: NDArray[np.generic], facts: Photometric | None
) -> None:
    with pytest.raises(ImageError) as refusal:
        grey_from_array(array, facts)
    assert refusal.value.code == "image.array"


def test_an_absurd_size_is_refused_by_its_limit() -> None:
    huge = np.broadcast_to(np.uint8(0), (20_000, 20_000))
    with pytest.raises(ImageError, match="67108864") as refusal:
        grey_from_array(huge)
    assert refusal.value.code == "image.too-large"


def test_the_name_of_an_interpretation_is_not_photometric_facts() -> None:
    with pytest.raises(ImageError, match="not the facts") as refused:
        grey_from_array(np.zeros((40, 40), np.uint16), "MONOCHROME2")  # type: ignore[arg-type]
    assert refused.value.code == "image.array"
