"""PNG and JPEG give the grey of cv2.imread, or are refused; a partial picture never comes out."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from promptray.runtime.errors import ImageError
from promptray.runtime.image_file import decode_jpeg, decode_png

COLOUR = Image.effect_noise((61, 47), 90)


def opencv(data: bytes) -> NDArray[np.uint8]:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    samples: NDArray[np.generic],
    colour: int,
    *,
    columns: int,
    depth: int = 8,
    before: bytes = b"",
    after: bytes = b"",
    stream: bytes | None = None,
) -> bytes:
    """A PNG of rows of samples, unfiltered."""
    lines = b"".join(b"\0" + row.tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", columns, len(samples), depth, colour, 0, 0, 0)
    pixels = zlib.compress(lines) if stream is None else stream
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + before
        + chunk(b"IDAT", pixels)
        + after
        + chunk(b"IEND", b"")
    )


def tiff(orientation: int, order: str = ">") -> bytes:
    mark = b"MM" if order == ">" else b"II"
    entry = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    return mark + struct.pack(f"{order}HIH", 42, 8, 1) + entry + bytes(4)


GENERATOR = np.random.default_rng(0)
BYTES = GENERATOR.integers(0, 256, (24, 64, 4), dtype=np.uint8)
WORDS = GENERATOR.integers(0, 65536, (24, 64, 4)).astype(">u2")
PALETTE = chunk(b"PLTE", GENERATOR.integers(0, 256, 768, dtype=np.uint8).tobytes())
GAMMA = chunk(b"gAMA", struct.pack(">I", 45455))
SRGB = chunk(b"sRGB", b"\0")
FORMATS = {
    "grey 1 bit": png(BYTES[:, :8, 0], 0, columns=64, depth=1),
    "grey 1 bit odd": png(BYTES[:, :8, 0], 0, columns=59, depth=1),
    "grey 2 bits": png(BYTES[:, :16, 0], 0, columns=64, depth=2),
    "grey 4 bits": png(BYTES[:, :32, 0], 0, columns=63, depth=4),
    "grey 8 bits": png(BYTES[:, :, 0], 0, columns=64),
    "grey 16 bits": png(WORDS[:, :, 0], 0, columns=64, depth=16),
    "grey and alpha": png(BYTES[:, :, :2], 4, columns=64),
    "grey and alpha 16 bits": png(WORDS[:, :, :2], 4, columns=64, depth=16),
    "colour": png(BYTES[:, :, :3], 2, columns=64),
    "colour 16 bits": png(WORDS[:, :, :3], 2, columns=64, depth=16),
    "colour and alpha": png(BYTES, 6, columns=64),
    "colour and alpha 16 bits": png(WORDS, 6, columns=64, depth=16),
    "palette": png(BYTES[:, :, 0], 3, columns=64, before=PALETTE),
    "palette 4 bits": png(BYTES[:, :32, 0], 3, columns=64, depth=4, before=PALETTE),
    "palette 1 bit": png(BYTES[:, :8, 0], 3, columns=64, depth=1, before=PALETTE),
    "palette with alpha": png(
        BYTES[:, :, 0], 3, columns=64, before=PALETTE + chunk(b"tRNS", bytes(range(256)))
    ),
    "palette with gamma": png(BYTES[:, :, 0], 3, columns=64, before=GAMMA + PALETTE),
    "grey with tRNS": png(BYTES[:, :, 0], 0, columns=64, before=chunk(b"tRNS", b"\0\7")),
    "grey with gamma": png(BYTES[:, :, 0], 0, columns=64, before=GAMMA),
    "grey 16 bits with sBIT": png(WORDS[:, :, 0], 0, columns=64, depth=16, before=chunk(b"sBIT", b"\x0c")),
    "colour with gamma": png(BYTES[:, :, :3], 2, columns=64, before=GAMMA),
    "colour with sRGB": png(BYTES[:, :, :3], 2, columns=64, before=SRGB),
    "colour with gamma 1": png(
        BYTES[:, :, :3], 2, columns=64, before=chunk(b"gAMA", struct.pack(">I", 100000))
    ),
    "colour with gamma 3": png(
        BYTES[:, :, :3], 2, columns=64, before=chunk(b"gAMA", struct.pack(">I", 300000))
    ),
    "grey shades as colour with sRGB": png(BYTES[:, :, :1].repeat(3, axis=2), 2, columns=64, before=SRGB),
    "unknown ancillary chunk": png(BYTES[:, :, 0], 0, columns=64, before=chunk(b"prVt", b"abc")),
    "something after the end": png(BYTES[:, :, 0], 0, columns=64) + b"trailing",
}


@pytest.mark.parametrize("name", FORMATS)
def test_png_formats_equal_opencv(name: str) -> None:
    grey = decode_png(FORMATS[name])
    assert grey.dtype == np.uint8
    np.testing.assert_array_equal(grey, opencv(FORMATS[name]))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_png_of_an_encoder_equals_opencv(mode: str) -> None:
    source = COLOUR if mode == "I;16" else Image.merge("RGB", [COLOUR] * 3)
    picture = (
        Image.fromarray(np.asarray(COLOUR).astype(np.uint16) * 257)
        if mode == "I;16"
        else source.convert(mode)
    )
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    np.testing.assert_array_equal(decode_png(stream.getvalue()), opencv(stream.getvalue()))


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 4), (8, 8), (13, 29), (64, 65)])
@pytest.mark.parametrize(("channels", "depth"), [(1, 8), (3, 8), (1, 16), (4, 16)])
def test_interlaced_png_equals_opencv(shape: tuple[int, int], channels: int, depth: int) -> None:
    samples = (BYTES if depth == 8 else WORDS).reshape(-1)
    samples = np.resize(samples, (*shape, channels))
    passes = (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    )
    lines = b""
    for left, top, wide, tall in passes:
        part = samples[top::tall, left::wide]
        lines += b"".join(b"\0" + row.tobytes() for row in part) if part.size else b""
    colour = {1: 0, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", shape[1], shape[0], depth, colour, 0, 0, 1)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines))
    data += chunk(b"IEND", b"")
    np.testing.assert_array_equal(decode_png(data), opencv(data))


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_orientation_is_applied_as_opencv_does(orientation: int, order: str) -> None:
    exif = tiff(orientation, order)
    for data in (
        png(BYTES[:, :, 0], 0, columns=64, before=chunk(b"eXIf", exif)),
        png(BYTES[:, :, 0], 0, columns=64, after=chunk(b"eXIf", exif)),
    ):
        np.testing.assert_array_equal(decode_png(data), opencv(data))
    stream = io.BytesIO()
    COLOUR.save(stream, "JPEG", exif=b"Exif\0\0" + exif)
    np.testing.assert_array_equal(decode_jpeg(stream.getvalue()), opencv(stream.getvalue()))


@pytest.mark.parametrize("cut", [3, 9, 15, 20])
def test_broken_exif_means_no_orientation(cut: int) -> None:
    data = png(BYTES[:, :, 0], 0, columns=64, before=chunk(b"eXIf", tiff(6)[:cut]))
    np.testing.assert_array_equal(decode_png(data), BYTES[:, :, 0])


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 2}, {"keep_rgb": True}]
)
def test_jpeg_equals_opencv(mode: str, options: dict[str, object]) -> None:
    noise = GENERATOR.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).resize((211, 173)).convert(mode).save(stream, "JPEG", quality=80, **options)
    np.testing.assert_array_equal(decode_jpeg(stream.getvalue()), opencv(stream.getvalue()))


def test_all_radiographs_equal_opencv(data_dir: Path | None) -> None:
    folder = data_dir / "cxr" / "images" if data_dir else None
    for path in sorted(folder.glob("*.jpg")) if folder else []:
        data = path.read_bytes()
        np.testing.assert_array_equal(decode_jpeg(data), opencv(data), err_msg=path.name)


def refused(data: bytes, code: str = "image.broken") -> ImageError:
    with pytest.raises(ImageError) as refusal:
        (decode_png if data.startswith(b"\x89PNG") else decode_jpeg)(data)
    assert refusal.value.code == code
    return refusal.value


def jpeg(**options: object) -> bytes:
    stream = io.BytesIO()
    COLOUR.save(stream, "JPEG", **options)
    return stream.getvalue()


def test_truncated_files_are_refused_at_every_length() -> None:
    for whole in (FORMATS["grey 8 bits"], FORMATS["palette"], jpeg(), jpeg(progressive=True)):
        for length in {*range(8, len(whole), max(1, len(whole) // 40)), len(whole) - 1}:
            refused(whole[:length])


def test_a_flipped_byte_of_a_png_is_refused() -> None:
    whole = FORMATS["grey 8 bits"]
    for position in range(8, len(whole), 11):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        with pytest.raises(ImageError):
            decode_png(bytes(damaged))


@pytest.mark.parametrize(
    "stream",
    [
        zlib.compress(bytes(65 * 23)),  # a row too few
        zlib.compress(bytes(65 * 25)),  # a row too many
        zlib.compress(bytes(65 * 24))[:-4],  # no checksum
        zlib.compress(bytes(65 * 24))[:-4] + b"abcd",
        zlib.compress(b"\7" + bytes(65 * 24 - 1)),  # no such filter
        b"",
        b"not zlib",
    ],
)
def test_a_png_whose_pixels_are_not_all_there_is_refused(stream: bytes) -> None:
    refused(png(BYTES[:, :, 0], 0, columns=64, stream=stream))


def test_wrong_structure_is_refused() -> None:
    refused(png(BYTES[:, :, 0], 3, columns=64))  # no palette
    refused(png(BYTES[:, :, 0], 3, columns=64, before=chunk(b"PLTE", bytes(9))))
    refused(png(BYTES[:, :, 0], 0, columns=64, depth=3))
    refused(png(BYTES[:, :, 0], 0, columns=64, before=chunk(b"CRIT", b"")))
    refused(b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b""))
    refused(b"\xff\xd8\xff\xe0\0\1")
    refused(b"\xff\xd8\xff\xd9" + bytes(20))


def test_colour_whose_grey_is_not_defined_is_refused() -> None:
    profile = chunk(b"iCCP", b"name\0\0" + zlib.compress(b"profile"))
    refused(png(BYTES[:, :, :3], 2, columns=64, before=profile), "image.colour")
    refused(png(WORDS[:, :, :3], 2, columns=64, depth=16, before=GAMMA), "image.colour")
    stream = io.BytesIO()
    COLOUR.convert("CMYK").save(stream, "JPEG")
    refused(stream.getvalue(), "image.colour")


def test_bombs_are_refused_from_the_header() -> None:
    huge = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    error = refused(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", huge), "image.too-large")
    assert "67108864" in str(error)
    whole = bytearray(jpeg())
    frame = whole.index(b"\xff\xc0") + 5
    whole[frame : frame + 4] = b"\xff\xff\xff\xff"
    assert "67108864" in str(refused(bytes(whole), "image.too-large"))
    bomb = zlib.compress(bytes(100_000_000), 9)
    refused(png(BYTES[:, :, 0], 0, columns=64, stream=bomb))


def test_endless_structure_is_refused() -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 24, 8, 0, 0, 0, 0))
    refused(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") * 100_001)
    whole = jpeg(progressive=True)
    scan = whole.index(b"\xff\xda")
    refused(whole[:scan] + whole[scan:-2] * 101 + whole[-2:])
