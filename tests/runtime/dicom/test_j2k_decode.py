"""Lossless JPEG 2000: every precision bit for bit, and pylibjpeg where Pillow could not be trusted."""

import io
from typing import Any

import numpy as np
import openjpeg
import pytest
from numpy.typing import NDArray
from openjpeg.utils import encode_array
from PIL import Image, ImageFile
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, UID, JPEG2000Lossless

from promptray.runtime.dicom import j2k_decode
from tests import dicom_factory as factory
from tests.runtime.dicom.decoding import code_of, decode


def film(
    values: NDArray[Any],
    bits: int,
    frame: bytes | None = None,
    syntax: UID = JPEG2000Lossless,
    **changes: Any,
) -> bytes:
    made = factory.dataset(values, BitsStored=bits, HighBit=bits - 1, **changes)
    made.PixelData = encapsulate([encode_array(values, bits_stored=bits) if frame is None else frame])
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    return factory.encode(made, syntax)


def noise(bits: int, shape: tuple[int, int] = (61, 47), *, signed: bool = False) -> NDArray[Any]:
    low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
    values = np.random.default_rng(bits).integers(low, high, shape)
    values[0, :2] = low, high - 1
    return values.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")


@pytest.fixture
def pillow_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> None:
        raise AssertionError("Pillow was asked")

    monkeypatch.setattr(j2k_decode, "decode_unsigned", asked)


@pytest.mark.parametrize("bits", range(2, 17))
def test_unsigned_samples_of_every_precision(bits: int) -> None:
    values = noise(bits)
    np.testing.assert_array_equal(decode(film(values, bits)), values)
    stream = encode_array(values, bits_stored=bits)
    np.testing.assert_array_equal(j2k_decode.decode_unsigned(stream, bits), values)


@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_tiles(mode: str) -> None:
    bits = 8 if mode == "L" else 16
    values, stream = noise(bits, (130, 170)), io.BytesIO()
    options = {"tile_size": (64, 48), "irreversible": False, "no_jp2": True}
    Image.frombytes(mode, values.shape[::-1], values.tobytes()).save(stream, "JPEG2000", **options)
    # Not with `values`: of 16 bits Pillow's encoder writes other tiles.
    expected = openjpeg.decode(stream.getvalue())
    np.testing.assert_array_equal(decode(film(values, bits, stream.getvalue())), expected)


@pytest.mark.usefixtures("pillow_is_not_asked")
def test_signed_samples_are_decoded_by_pylibjpeg() -> None:
    values = noise(12, signed=True)
    np.testing.assert_array_equal(decode(film(values, 12)), values)


@pytest.mark.usefixtures("pillow_is_not_asked")
@pytest.mark.parametrize("lossy", [{"compression_ratios": [8.0]}, {}])
def test_what_may_be_lossy_is_decoded_by_pylibjpeg(lossy: dict[str, Any]) -> None:
    values = np.add.outer(np.arange(61), 40 * np.arange(47)).astype(np.uint16)
    frame = encode_array(values, bits_stored=12, **lossy)
    decoded = decode(film(values, 12, frame, JPEG2000))
    assert np.abs(decoded.astype(int) - values).max() < 300


@pytest.mark.usefixtures("pillow_is_not_asked")
def test_where_pillow_would_show_half_a_picture_pylibjpeg_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    values = noise(12)
    np.testing.assert_array_equal(decode(film(values, 12)), values)


def test_frames_with_a_hole_are_refused_or_whole() -> None:
    values = noise(12, (256, 256))
    frame = encode_array(values, bits_stored=12)
    for cut in (len(frame) // 4, len(frame) // 2, len(frame) - 40):
        assert code_of(film(values, 12, frame[:cut] + b"\xff\xd9")) == "image.broken"
