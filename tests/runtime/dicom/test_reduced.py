"""JPEG 2000 at a lower resolution: the samples of the standard's own filter, where nothing else changes."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from openjpeg.utils import encode_array
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
)

from promptray.runtime.bundle.image_rules import Greyscale
from promptray.runtime.door import open_picture
from promptray.runtime.picture import Picture
from tests import dicom_factory as factory


def film(
    values: NDArray[Any], *, syntax: UID = JPEG2000Lossless, frame: bytes | None = None, **changes: Any
) -> bytes:
    made = factory.dataset(values, **changes)
    if syntax != ExplicitVRLittleEndian:
        bits = made.BitsStored
        made.PixelData = encapsulate([encode_array(values, bits_stored=bits) if frame is None else frame])
        made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    return factory.encode(made, syntax)


def enter(data: bytes, most: int) -> Picture:
    return open_picture(data, factory.CHEST, Greyscale(), halvings=lambda rows, columns: most)


def low_pass(samples: NDArray[np.int64]) -> NDArray[np.int64]:
    """The reversible 5-3 filter along the first axis (ISO 15444-1 F.4.8.2), borders mirrored."""
    even, odd = samples[::2], samples[1::2]
    after = np.concatenate([even[1:], even[-1:]])[: len(odd)]
    details = odd - ((even[: len(odd)] + after) >> 1)
    left = np.concatenate([details[:1], details])[: len(even)]
    right = np.concatenate([details, details[-1:]])[: len(even)]
    return even + ((left + right + 2) >> 2)


@pytest.mark.parametrize("shape", [(256, 160), (259, 161), (162, 258)])
@pytest.mark.parametrize("most", [1, 2])
def test_samples_are_those_of_the_standards_filter(shape: tuple[int, int], most: int) -> None:
    values = np.random.default_rng(3).integers(1000, 3000, shape).astype(np.uint16)
    picture = enter(film(values), most)
    expected = values.astype(np.int64) - 2048
    for _ in range(picture.reduction):
        expected = low_pass(low_pass(expected).T).T
    whole = enter(film((expected + 2048).astype(np.uint16), syntax=ExplicitVRLittleEndian), 0)
    assert 1 <= picture.reduction <= most
    np.testing.assert_array_equal(picture.grey, whole.grey)
    assert (picture.source.rows, picture.source.columns) == shape
    assert [notice.code for notice in picture.notices] == ["reduced-decode"]


def test_places_are_those_of_the_original() -> None:
    """Where a bright square lies, in edge coordinates of the original, tells from its centre of mass."""
    values = np.full((256, 256), 1000, np.uint16)
    values[100:141, 60:81] = 3000
    for most in (1, 2, 3):
        picture = enter(film(values), most)
        assert picture.reduction == most
        bright = picture.grey.astype(np.float64) - picture.grey[0, 0]
        rows, columns = (np.arange(side) + 0.5 for side in bright.shape)
        centre = (bright.sum(1) @ rows / bright.sum(), bright.sum(0) @ columns / bright.sum())
        np.testing.assert_allclose(picture.geometry.to_original(*centre), (120.5, 70.5), atol=0.25)


def test_a_side_that_pillow_would_cut_is_halved_less_often() -> None:
    values = factory.ramp(257, 256)
    assert enter(film(values), 3).reduction == 1


def test_no_more_often_than_the_frame_was_halved() -> None:
    stream = io.BytesIO()
    values = factory.ramp(256, 256, bits=16)
    options = {"irreversible": False, "no_jp2": True, "num_resolutions": 2}
    Image.frombytes("I;16", (256, 256), values.tobytes()).save(stream, "JPEG2000", **options)
    data = film(values, frame=stream.getvalue(), BitsStored=16, HighBit=15)
    assert enter(data, 5).reduction == 1


def test_lossy_frames_are_reduced_too() -> None:
    values = factory.ramp(256, 256)
    frame = encode_array(values, bits_stored=12, compression_ratios=[10.0])
    picture = enter(film(values, frame=frame, syntax=JPEG2000), 2)
    whole = enter(film(values, frame=frame, syntax=JPEG2000), 0)
    assert (picture.reduction, whole.reduction) == (2, 0)
    assert np.abs(picture.grey[8:-8, 8:-8].astype(int) - whole.grey[32:-32:4, 32:-32:4]).max() <= 2


@pytest.mark.parametrize(
    "changes",
    [
        {"syntax": ExplicitVRLittleEndian},
        {"syntax": HTJ2KLossless},
        {"syntax": HTJ2KLosslessRPCL},
        {"syntax": HTJ2K},
        {"WindowCenter": None, "WindowWidth": None},
        {"PixelPaddingValue": 0},
        {"HighBit": 12},
        {"BitsStored": 11, "HighBit": 10, "frame": encode_array(factory.ramp(256, 256), bits_stored=16)},
    ],
    ids=[
        "uncompressed",
        "HTJ2K lossless",
        "HTJ2K lossless RPCL",
        "HTJ2K",
        "no window",
        "padding",
        "high bit",
        "container",
    ],
)
def test_what_reduction_would_change_is_decoded_whole(changes: dict[str, Any]) -> None:
    values = factory.ramp(256, 256, bits=changes.get("BitsStored", 12))
    if changes.get("HighBit") == 12:
        changes = {**changes, "frame": encode_array(values << 1, bits_stored=16)}
    data = film(values, **changes)
    picture, whole = enter(data, 2), enter(data, 0)
    assert picture.reduction == 0
    assert "reduced-decode" not in [notice.code for notice in picture.notices]
    np.testing.assert_array_equal(picture.grey, whole.grey)


def test_signed_values_are_decoded_whole() -> None:
    values = (factory.ramp(256, 256).astype(np.int16) - 2048).astype(np.int16)
    assert enter(film(values, WindowCenter=0), 2).reduction == 0


def test_by_default_nothing_is_reduced() -> None:
    picture = open_picture(film(factory.ramp(256, 256)), factory.CHEST, Greyscale())
    assert (picture.reduction, picture.grey.shape) == (0, (256, 256))


def test_the_least_side_is_that_of_the_original() -> None:
    assert enter(film(factory.ramp(40, 256)), 2).grey.shape == (10, 64)
