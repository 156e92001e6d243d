"""Coloured pictures where a model takes colour, and their grey where it does not."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from promptray.runtime.bundle.image_rules import Door, Greyscale
from promptray.runtime.dicom.photometric import Photometric
from promptray.runtime.door import open_picture
from promptray.runtime.errors import ImageError
from promptray.runtime.image_file import decode_jpeg, decode_png, decode_png_colour, luminance
from promptray.runtime.picture import Picture
from tests.dicom_factory import dataset

DOOR = Door(modalities=["DX"])
GENERATOR = np.random.default_rng(5)
COLOUR = GENERATOR.integers(0, 256, (50, 61, 3), dtype=np.uint8)
GREY = GENERATOR.integers(0, 256, (50, 61), dtype=np.uint8)


def opened(source: Any, *, keep_colour: bool = True) -> Picture:
    return open_picture(source, DOOR, Greyscale(), keep_colour=keep_colour, modality="DX")


def file(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pillow(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def opaque() -> Image.Image:
    image = Image.fromarray(COLOUR)
    image.putalpha(255)
    return image


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def gamma() -> PngInfo:
    info = PngInfo()
    info.add(b"gAMA", (45455).to_bytes(4, "big"))
    return info


SHOWN = {
    "png rgb": file(Image.fromarray(COLOUR)),
    "png rgba, opaque": file(opaque()),
    "png palette": file(Image.fromarray(COLOUR).quantize(200)),
    "png palette of 16": file(Image.fromarray(COLOUR).quantize(16)),
    "png rgb with a gamma": file(Image.fromarray(COLOUR), pnginfo=gamma()),
    "jpeg 4:4:4": file(Image.fromarray(COLOUR), "jpeg", subsampling=0, quality=90),
    "jpeg 4:2:2": file(Image.fromarray(COLOUR), "jpeg", subsampling=1, quality=90),
    "jpeg 4:2:0": file(Image.fromarray(COLOUR), "jpeg", subsampling=2, quality=75),
    "jpeg progressive": file(Image.fromarray(COLOUR), "jpeg", progressive=True),
}


@pytest.mark.parametrize("name", SHOWN)
def test_colour_is_what_pillow_decodes(name: str) -> None:
    picture = opened(SHOWN[name])
    assert picture.colour is not None
    assert picture.shown is picture.colour
    assert picture.colour.flags.c_contiguous
    np.testing.assert_array_equal(picture.colour, pillow(SHOWN[name]))
    np.testing.assert_array_equal(picture.grey, luminance(picture.colour))
    assert [notice.code for notice in picture.notices] == ["coloured"]


@pytest.mark.parametrize("kind", ["png", "jpeg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_turns_the_colours(orientation: int, kind: str) -> None:
    data = file(Image.fromarray(COLOUR), kind, exif=exif(orientation))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    picture = opened(data)
    assert (picture.source.rows, picture.source.columns) == (expected.height, expected.width)
    np.testing.assert_array_equal(picture.colour, np.asarray(expected))


def transparent() -> Image.Image:
    image = opaque()
    image.putpixel((3, 4), (9, 9, 9, 254))
    return image


def faded() -> Image.Image:
    alpha = np.full_like(GREY, 255)
    alpha[3, 4] = 254
    return Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)])


REFUSED = {
    "transparent in one pixel": file(transparent()),
    "grey, transparent in one pixel": file(faded()),
    "grey with a transparent level": file(Image.fromarray(GREY), transparency=7),
    "rgb with a transparent colour": file(Image.fromarray(COLOUR), transparency=(1, 2, 3)),
    "a transparent palette": file(Image.fromarray(COLOUR).quantize(20), transparency=3),
}


@pytest.mark.parametrize("name", REFUSED)
def test_transparent_colour_is_refused(name: str) -> None:
    with pytest.raises(ImageError, match="transparent") as refusal:
        opened(REFUSED[name])
    assert refusal.value.code == "image.colour"
    assert "8-bit grey" in str(refusal.value.cure)


@pytest.mark.parametrize("pixels", [COLOUR, GREY], ids=["colour", "grey"])
def test_sixteen_bits_are_refused_where_colour_is_kept(pixels: NDArray[np.uint8]) -> None:
    """Pillow clips them at 255, and nobody's model was made for their high byte."""
    _, encoded = cv2.imencode(".png", pixels.astype(np.uint16) * 257)
    with pytest.raises(ImageError, match="16 bits a sample") as refusal:
        opened(encoded.tobytes())
    assert refusal.value.code == "image.depth"
    assert opened(encoded.tobytes(), keep_colour=False).grey.shape == GREY.shape


def test_single_bits_are_refused_where_colour_is_kept() -> None:
    """Pillow resizes them by nearest neighbour, without grey."""
    data = file(Image.fromarray(GREY > 100))
    with pytest.raises(ImageError, match="1 bits a sample") as refusal:
        opened(data)
    assert refusal.value.code == "image.depth"
    assert opened(data, keep_colour=False).grey.max() == 255


def test_a_picture_of_few_levels_is_noted() -> None:
    """A film of 12 bits in a PNG of 16 keeps its high byte: 16 levels of 256."""
    _, encoded = cv2.imencode(".png", GREY.astype(np.uint16) * 16)
    codes = [notice.code for notice in opened(encoded.tobytes(), keep_colour=False).notices]
    assert "narrow-range" in codes
    assert "narrow-range" not in [notice.code for notice in opened(file(Image.fromarray(GREY))).notices]


def test_a_broken_coloured_file_is_refused() -> None:
    for name, data in SHOWN.items():
        with pytest.raises(ImageError) as refusal:
            opened(data[: len(data) * 2 // 3])
        assert refusal.value.code == "image.broken", name
    missing = bytearray(file(Image.fromarray(GREY % 4).convert("P"), bits=8))
    assert decode_png_colour(bytes(missing)) is not None
    short = Image.fromarray(GREY)
    short.putpalette([1, 2, 3])  # fewer colours than pixels name
    with pytest.raises(ImageError, match="palette is incomplete"):
        opened(file(short))


GREYS = {
    "png": file(Image.fromarray(GREY)),
    "png with alpha, opaque": file(
        Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(np.full_like(GREY, 255))])
    ),
    "png of 4 bits": file(Image.fromarray(GREY // 17 * 17).quantize(16).convert("L"), bits=4),
    "jpeg": file(Image.fromarray(GREY), "jpeg"),
}


@pytest.mark.parametrize("name", GREYS)
def test_a_grey_file_stays_grey(name: str) -> None:
    picture = opened(GREYS[name])
    decode = decode_jpeg if name == "jpeg" else decode_png
    assert picture.colour is None
    np.testing.assert_array_equal(picture.shown, decode(GREYS[name]))
    assert not picture.notices


def test_greys_stored_as_colour_are_not_called_coloured() -> None:
    picture = opened(file(Image.fromarray(GREY).convert("RGB")))
    assert picture.colour is not None
    assert not picture.notices


@pytest.mark.parametrize("name", SHOWN)
def test_a_model_of_greys_sees_what_it_always_saw(name: str) -> None:
    data = SHOWN[name]
    picture = opened(data, keep_colour=False)
    assert picture.colour is None
    np.testing.assert_array_equal(picture.shown, (decode_jpeg if "jpeg" in name else decode_png)(data))
    assert "coloured" not in [notice.code for notice in picture.notices]


def test_an_array_of_colours() -> None:
    picture = opened(COLOUR)
    np.testing.assert_array_equal(picture.colour, COLOUR)
    assert not np.shares_memory(picture.colour, COLOUR)
    np.testing.assert_array_equal(opened(COLOUR[::-1, ::-1]).colour, COLOUR[::-1, ::-1])
    np.testing.assert_array_equal(opened(np.asfortranarray(COLOUR)).colour, COLOUR)
    with pytest.raises(ImageError) as refusal:
        opened(COLOUR, keep_colour=False)
    assert refusal.value.code == "image.array"


ARRAYS: dict[str, Any] = {
    "four channels": np.zeros((40, 40, 4), np.uint8),
    "channels first": np.zeros((3, 40, 40), np.uint8),
    "one channel": np.zeros((40, 40, 1), np.uint8),
    "16 bits": COLOUR.astype(np.uint16),
    "signed": COLOUR.astype(np.int8),
    "floats": COLOUR / 255,
    "truth values": COLOUR > 100,
    "masked": np.ma.masked_array(COLOUR, COLOUR > 3),
    "empty": np.zeros((0, 40, 3), np.uint8),
    "several": np.zeros((2, 40, 40, 3), np.uint8),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_of_another_kind_is_refused(name: str) -> None:
    with pytest.raises(ImageError) as refusal:
        opened(ARRAYS[name])
    assert refusal.value.code == "image.array"


def test_photometric_facts_of_a_coloured_array_are_refused() -> None:
    facts = Photometric(interpretation="MONOCHROME1", bits_stored=8)
    with pytest.raises(ImageError, match="photometric facts are of grey values") as refusal:
        open_picture(COLOUR, DOOR, Greyscale(), keep_colour=True, modality="DX", photometric=facts)
    assert refusal.value.code == "image.array"


def test_an_array_beyond_the_limit_is_refused_uncopied() -> None:
    absurd = np.broadcast_to(np.zeros(3, np.uint8), (40_000, 40, 3))
    with pytest.raises(ImageError) as refusal:
        opened(absurd)
    assert refusal.value.code == "image.too-large"


def test_dicom_in_colour_is_still_refused() -> None:
    interleaved = dataset(
        COLOUR, SamplesPerPixel=3, PlanarConfiguration=0, PhotometricInterpretation="RGB", Modality="DX",
        Rows=50, Columns=61,
    )  # fmt: skip
    del interleaved.NumberOfFrames
    assert opened(dataset(Modality="DX")).colour is None
    with pytest.raises(ImageError) as refusal:
        opened(interleaved)
    assert refusal.value.code == "image.colour"


def test_small_and_flat_colour_is_refused_as_grey_is() -> None:
    for array, code in (
        (np.zeros((20, 40, 3), np.uint8), "image.too-small"),
        (np.full((40, 40, 3), (10, 20, 30), np.uint8), "image.constant"),
    ):
        with pytest.raises(ImageError) as refusal:
            opened(array)
        assert refusal.value.code == code
