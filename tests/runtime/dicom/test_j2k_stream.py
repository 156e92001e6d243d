"""Code streams of JPEG 2000: every tile there and whole, and no header that asks for a bomb."""

import io
import itertools
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000

from promptray.runtime.dicom.j2k_stream import check_j2k, header_segments, read_j2k_header
from promptray.runtime.errors import ImageError
from promptray.runtime.limits import MAX_J2K_PARTS, MAX_SIDE
from tests import dicom_factory as factory
from tests.runtime.dicom.decoding import code_of, decode

EOC = b"\xff\xd9"
NO_PRECINCT, WHOLE = b"\0" + b"\x11" * 5, b""
Part = tuple[int, int, int]


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">HH", marker, len(body) + 2) + body


def siz(columns: int, rows: int, tile: tuple[int, int], origin: int = 0, sampling: int = 1) -> bytes:
    size = struct.pack(">8I", columns + origin, rows + origin, origin, origin, *tile, 0, 0)
    return segment(0xFF51, b"\0\0" + size + struct.pack(">HBBB", 1, 7, sampling, sampling))


def spec(levels: int = 5, block: tuple[int, int] = (6, 6), precincts: bytes = WHOLE) -> bytes:
    return bytes([levels, block[0] - 2, block[1] - 2, 0, 1]) + precincts


def cod(layers: int = 1, **style: Any) -> bytes:
    scod = bytes([1 if style.get("precincts") else 0, 2])
    return segment(0xFF52, scod + struct.pack(">HB", layers, 0) + spec(**style))


def coc(**style: Any) -> bytes:
    return segment(0xFF53, bytes([0, 1 if style.get("precincts") else 0]) + spec(**style))


def tile_part(tile: int, number: int, count: int, header: bytes = b"", data: bytes = b"\0") -> bytes:
    rest = header + b"\xff\x93" + data
    return segment(0xFF90, struct.pack(">HIBB", tile, 12 + len(rest), number, count)) + rest


def stream(size: bytes, main: bytes, *parts: bytes) -> bytes:
    return b"\xff\x4f" + size + main + b"".join(parts or [tile_part(0, 0, 1)]) + EOC


def refusal(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as refused:
        check_j2k(data)
    return refused.value


def tiled_frame() -> tuple[Any, bytes, list[bytes]]:
    """A picture, the main header of its stream, and its 16 tile-parts."""
    pixels = (factory.ramp(64, 64) >> 4).astype(np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "JPEG2000", tile_size=(16, 16), no_jp2=True, num_resolutions=2)
    data = written.getvalue()
    begin = data.index(b"\xff\x90")
    main, parts = data[:begin], []
    while data[begin : begin + 2] == b"\xff\x90":
        end = begin + int.from_bytes(data[begin + 6 : begin + 10], "big")
        parts.append(data[begin:end])
        begin = end
    assert len(parts) == 16
    return pixels, main, parts


def film(pixels: Any, frame: bytes) -> bytes:
    made = factory.dataset(pixels, BitsStored=8, HighBit=7)
    made.PixelData = encapsulate([frame])
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    return factory.encode(made, JPEG2000)


def test_a_frame_that_lacks_a_tile_is_refused() -> None:
    pixels, main, parts = tiled_frame()
    np.testing.assert_array_equal(decode(film(pixels, main + b"".join(parts) + EOC)), pixels)
    backwards = main + b"".join(parts[::-1]) + EOC  # tiles may come in any order
    np.testing.assert_array_equal(decode(film(pixels, backwards)), pixels)
    for kept in (parts[:8], parts[:1], parts[:5] + parts[6:], parts[:15] + parts[:1], parts + parts[:1], []):
        assert code_of(film(pixels, main + b"".join(kept) + EOC)) == "image.broken"


def test_two_streams_in_a_frame_are_refused() -> None:
    pixels, main, parts = tiled_frame()
    whole = main + b"".join(parts) + EOC
    assert code_of(film(pixels, whole + whole)) == "image.broken"
    np.testing.assert_array_equal(decode(film(pixels, whole + b"\0\0")), pixels)


@pytest.mark.parametrize(
    ("parts", "complete"),
    [
        ([(0, 0, 2), (0, 1, 2), (1, 0, 1)], True),
        ([(0, 0, 0), (1, 0, 0), (0, 1, 2)], True),  # stated in one part, parts interleaved
        ([(0, 0, 0), (1, 0, 0)], True),  # stated nowhere
        ([(0, 0, 2), (1, 0, 1)], False),
        ([(0, 0, 1), (0, 1, 1), (1, 0, 1)], False),
        ([(0, 0, 2), (0, 1, 3), (1, 0, 1)], False),
        ([(0, 1, 2), (0, 0, 2), (1, 0, 1)], False),
        ([(0, 0, 1), (2, 0, 1)], False),
        ([(0, 0, 0), (0, 0, 0), (1, 0, 0)], False),
    ],
)
def test_the_parts_of_a_tile(parts: list[Part], complete: bool) -> None:
    data = stream(siz(32, 16, (16, 16)), cod(levels=1), *itertools.starmap(tile_part, parts))
    if complete:
        check_j2k(data)
    else:
        assert refusal(data).code == "image.broken"


def test_lengths_of_tile_parts() -> None:
    size, part = siz(16, 16, (16, 16)), tile_part(0, 0, 1)
    open_end = part[:6] + bytes(4) + part[10:]  # Psot 0: up to the end
    check_j2k(stream(size, cod(), open_end))
    for wrong in (0x10, 0x0D, 0x0C, 1, 0xFFFFFFFF):
        changed = part[:6] + struct.pack(">I", wrong) + part[10:]
        assert refusal(stream(size, cod(), changed)).code == "image.broken", wrong
    two_tiles = siz(32, 16, (16, 16))
    assert refusal(stream(two_tiles, cod(), open_end, tile_part(1, 0, 1))).code == "image.broken"
    for between in (b"\0\0", part[:12], cod()):
        assert refusal(stream(two_tiles, cod(), part, between, tile_part(1, 0, 1))).code == "image.broken"


@pytest.mark.parametrize(
    "data",
    [
        stream(siz(16, 16, (0, 16)), cod()),
        stream(siz(16, 16, (8, 16), origin=8), cod()),  # the first tile holds nothing of the picture
        stream(siz(MAX_SIDE, 2048, (1, 512)), cod()),  # 131072 tiles
        stream(siz(16, 16, (16, 16), sampling=2), cod()),
        stream(siz(16, 16, (16, 16)), b""),
        stream(siz(16, 16, (16, 16)), segment(0xFF52, b"\0\0")),
        stream(siz(16, 16, (16, 16)), cod(levels=33)),
        stream(siz(16, 16, (16, 16)), cod(block=(7, 6))),
        stream(siz(16, 16, (16, 16)), cod(block=(11, 2))),
        stream(siz(16, 16, (16, 16)), cod(levels=1, precincts=b"\x11\x10")),
        stream(siz(16, 16, (16, 16)), cod(levels=1, precincts=b"\x11")),
    ],
)
def test_a_malformed_header_is_refused(data: bytes) -> None:
    assert read_j2k_header(data) is not None
    assert refusal(data).code == "image.broken"


@pytest.mark.parametrize(
    ("main", "tile"),
    [
        (cod(levels=0, precincts=b"\0"), b""),
        (cod(precincts=NO_PRECINCT), b""),
        (cod(levels=0, block=(2, 2)), b""),
        (cod(levels=32, precincts=b"\0" + b"\x11" * 32), b""),
        (cod() + coc(precincts=NO_PRECINCT), b""),
        (cod(), cod(precincts=NO_PRECINCT)),
        (cod(), coc(levels=0, block=(2, 2))),
        (cod(layers=65535), b""),
        (cod(), cod(layers=101)),
        (cod(layers=100, precincts=b"\x66" * 6), b""),
        (cod(precincts=b"\x77" * 6) + segment(0xFF5F, bytes(7 * 100)), b""),
        # few precincts, but a progression by position visits every column and row of either
        (cod(levels=1, precincts=b"\xf0\x1f"), b""),
    ],
)
def test_a_header_that_asks_for_a_bomb_is_refused(main: bytes, tile: bytes) -> None:
    error = refusal(stream(siz(4000, 4000, (4000, 4000)), main, tile_part(0, 0, 1, tile)))
    assert error.code == "image.too-large"
    assert error.expected is not None
    assert str(MAX_J2K_PARTS) in error.expected or "100 quality layers" in error.expected


def test_a_bomb_of_tiles_is_refused() -> None:
    parts = [tile_part(tile, 0, 1) for tile in range(125 * 125)]
    assert refusal(stream(siz(8000, 8000, (64, 64)), cod(levels=0), *parts)).code == "image.too-large"


def test_a_bomb_of_segments_is_refused() -> None:
    size = siz(16, 16, (16, 16))
    check_j2k(stream(size, cod() + segment(0xFF64, b"") * 99_000))
    assert refusal(stream(size, cod() + segment(0xFF64, b"") * 100_001)).code == "image.too-large"


def test_a_bomb_in_a_frame_is_refused_before_it_is_decoded() -> None:
    frame = stream(siz(4000, 4000, (4000, 4000)), cod(levels=0, precincts=b"\0"))
    assert code_of(film(np.zeros((4000, 4000), np.uint8), frame)) == "image.too-large"


@pytest.mark.parametrize("size", [(8192, 8192), (32768, 2048)])
@pytest.mark.parametrize("tile", [128, 256, 1024, 32768])
@pytest.mark.parametrize(
    "style",
    [
        {},
        {"block": (5, 5)},
        {"levels": 0},
        {"levels": 8, "layers": 50},
        {"layers": 20, "precincts": b"\x77" + b"\x88" * 5},
    ],
)
def test_no_usual_style_of_the_largest_picture_is_refused(
    size: tuple[int, int], tile: int, style: dict[str, Any]
) -> None:
    if tile < 1024 and style.get("layers"):  # so many layers of so small tiles are not usual
        return
    tiles = -(-size[0] // tile) * -(-size[1] // tile)
    parts = [tile_part(number, 0, 1) for number in range(tiles)]
    check_j2k(stream(siz(*size, (tile, tile)), cod(**style), *parts))


def test_a_stream_of_high_throughput_is_walked() -> None:
    capability = segment(0xFF50, struct.pack(">IH", 0x0002_0000, 0))  # CAP, part 15
    style = cod()[:-2] + b"\x40\x01"  # high-throughput code-blocks, wavelet 5/3
    data = stream(siz(16, 16, (16, 16)), capability + style)
    assert [marker for marker, _ in header_segments(data)] == [0xFF51, 0xFF50, 0xFF52, 0xFF90]
    check_j2k(data)
