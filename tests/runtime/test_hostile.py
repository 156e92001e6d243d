"""Properties of the door: whatever the bytes, a picture or a refusal with a registered code; nothing else.

Known attacks with their refusals are in ``tests/attacks``; hangs and memory are watched by ``tests/fuzz``.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

from promptray.runtime.bundle.image_rules import Greyscale
from promptray.runtime.door import open_picture
from promptray.runtime.errors import CODES, ImageError
from promptray.runtime.picture import Picture
from tests import dicom_factory as factory

FILES = Path(__file__).parents[1] / "data" / "dicom" / "files"
FUZZ = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))


def enter(source: Any) -> Picture | ImageError:
    """Open a source; any exception but a registered refusal, and any warning, fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            picture = open_picture(source, factory.CHEST, Greyscale(), modality=_declared(source))
        except ImageError as error:
            return error if error.code in CODES else pytest.fail(f"unregistered code {error.code}")
    assert picture.grey.dtype == np.uint8
    assert picture.grey.min() < picture.grey.max()
    assert picture.grey.shape == (picture.source.rows, picture.source.columns)
    return picture


def _declared(source: Any) -> str | None:
    return "CR" if isinstance(source, bytes) and source[:1] in (b"\x89", b"\xff") else None


def seeds() -> Iterator[tuple[str, bytes]]:
    for path in sorted(FILES.glob("*.dcm")):
        if path.stat().st_size < 150_000:
            yield path.name, path.read_bytes()
    yield "made", factory.file()
    yield "bare", factory.encode_bare(factory.dataset())
    for kind in ("png", "jpeg"):
        stream = io.BytesIO()
        Image.fromarray((factory.ramp() >> 4).astype(np.uint8)).save(stream, kind)
        yield kind, stream.getvalue()


SEEDS = dict(seeds())


@pytest.mark.parametrize("name", SEEDS)
def test_truncated_at_every_twentieth(name: str) -> None:
    whole = SEEDS[name]
    complete = enter(whole)
    for cut in {len(whole) * part // 20 for part in range(20)} | {len(whole) - 1, len(whole) - 2}:
        outcome = enter(whole[:cut])
        if isinstance(outcome, Picture):  # only what follows the pixels may be missing
            assert isinstance(complete, Picture)
            np.testing.assert_array_equal(outcome.grey, complete.grey)


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_bytes(name: str) -> None:
    whole, generator = SEEDS[name], np.random.default_rng(len(name))
    for _ in range(30):
        damaged = bytearray(whole)
        for position in generator.integers(0, min(len(whole), 2000), 4):
            damaged[position] = generator.integers(0, 256)
        enter(bytes(damaged))


@given(
    st.binary(max_size=600),
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", bytes(128) + b"DICM"]),
)
@FUZZ
def test_random_bytes(body: bytes, signature: bytes) -> None:
    assert isinstance(enter(signature + body), ImageError)


@given(
    st.binary(max_size=400), st.sampled_from([b"\x08\0\x05\0CS", b"\x08\0\x16\0\x1a\0\0\0", b"\x02\0\0\0UL"])
)
@FUZZ
def test_random_data_sets_without_preamble(body: bytes, start: bytes) -> None:
    assert isinstance(enter(start + body), ImageError)


def element(keyword: str, value: bytes) -> bytes:
    """An explicit little endian element of any bytes, in the keyword's own VR."""
    tag = tag_for_keyword(keyword) or 0
    vr = dictionary_VR(keyword)[:2].encode()
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT", b"OF", b"OD", b"OV"):
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def with_elements(changed: dict[str, bytes], pixels: bytes | None = None) -> bytes:
    """The film with elements of any bytes, which no library would write, in the place of its own."""
    made = factory.dataset()
    for keyword in changed:
        if keyword in made:
            del made[keyword]
    whole = factory.encode(made)
    start = whole.index(b"\xe0\x7f\x10\0")
    last = whole[start:] if pixels is None else element("PixelData", pixels)
    return whole[:start] + b"".join(element(keyword, value) for keyword, value in changed.items()) + last


VALUES = st.one_of(
    st.binary(max_size=12),
    st.integers(0, 65535).map(lambda number: struct.pack("<H", number)),
    st.from_regex(r"\A[0-9.eE+\-\\ nNaAiIfF]{0,14}\Z").map(str.encode),
    st.sampled_from([b"MONOCHROME1 ", b"MONOCHROME2 ", b"RGB ", b"SIGMOID ", b"1e999 ", b"nan ", b"-0 "]),
)
CHANGED = st.dictionaries(
    st.sampled_from(
        [
            *("Modality", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows"),
            *("Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelSpacing"),
            *("PixelPaddingValue", "PixelPaddingRangeLimit", "WindowCenter", "WindowWidth"),
            *("VOILUTFunction", "RescaleIntercept", "RescaleSlope", "PresentationLUTShape"),
            *("SOPInstanceUID", "VOILUTSequence", "ModalityLUTSequence"),
            *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
        ]
    ),
    VALUES,
    min_size=1,
    max_size=4,
)


@given(CHANGED)
@FUZZ
def test_random_tag_values(changed: dict[str, bytes]) -> None:
    enter(with_elements(changed))


@given(st.integers(0, 255), st.integers(0, 2000), st.binary(max_size=300))
@FUZZ
def test_random_code_streams(name: int, start: int, body: bytes) -> None:
    compressed = [name for name in SEEDS if any(mark in name for mark in ("J", "jpeg", "RLE"))]
    whole = bytearray(SEEDS[compressed[name % len(compressed)]])
    offset = max(0, len(whole) - 3000) + start
    whole[offset : offset + len(body)] = body
    enter(bytes(whole))


def test_many_elements_and_many_items() -> None:
    whole = factory.file()
    pixels = whole.index(b"\xe0\x7f\x10\0")
    outcome = enter(whole[:pixels] + b"\x41\0\x01\0LO\0\0" * 100_000 + whole[pixels:])
    assert isinstance(outcome, Picture)
    made = factory.dataset(np.stack([factory.ramp()] * 2))
    made.PerFrameFunctionalGroupsSequence = [Dataset() for _ in range(20_000)]
    assert isinstance(enter(factory.encode(made)), ImageError)  # a frame must be chosen


NUMBERS = st.sampled_from([0, 1, 2, 7, 8, 11, 12, 15, 16, 31, 32, 33, 255, 65535])
SIZES = st.one_of(st.integers(0, 70), st.sampled_from([255, 8192, 32768, 32769, 65535]))
DECIMALS = st.one_of(
    st.sampled_from(["0", "-0", "1", "-1", "0.5", "1e-40", "1e300", "99999999999999999999"]),
    st.floats(-1e6, 1e6).map(lambda number: f"{number:.6g}"),
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "Rows": SIZES,
            "Columns": SIZES,
            "SamplesPerPixel": st.sampled_from([0, 1, 3, 4]),
            "BitsAllocated": st.sampled_from([0, 1, 8, 12, 16, 24, 32, 64]),
            "BitsStored": NUMBERS,
            "HighBit": NUMBERS,
            "PixelRepresentation": st.sampled_from([0, 1, 2]),
            "PhotometricInterpretation": st.sampled_from(
                ["MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "X"]
            ),
            "NumberOfFrames": st.sampled_from(["1", "2", "0", "-1", "1000000"]),
            "WindowCenter": DECIMALS,
            "WindowWidth": DECIMALS,
            "VOILUTFunction": st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID", "OTHER"]),
            "RescaleSlope": DECIMALS,
            "RescaleIntercept": DECIMALS,
            "PixelPaddingValue": st.integers(0, 65535),
            "PixelPaddingRangeLimit": st.integers(0, 65535),
            "PresentationLUTShape": st.sampled_from(["IDENTITY", "INVERSE", "OTHER"]),
        },
    ),
    st.binary(max_size=64),
    st.sampled_from([0, 1, 3, 3839, 3840, 3841, 4000, 70_000]),
)
@FUZZ
def test_random_pixel_formats(tags: dict[str, Any], values: bytes, size: int) -> None:
    pixels = (values * (size // max(1, len(values)) + 1))[:size]
    enter(with_elements({keyword: as_bytes(value) for keyword, value in tags.items()}, pixels))


def as_bytes(value: int | str) -> bytes:
    return struct.pack("<H", value) if isinstance(value, int) else value.encode() + b" " * (len(value) % 2)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [b"IDAT", b"PLTE", b"tRNS", b"gAMA", b"sRGB", b"iCCP", b"eXIf", b"acTL", b"evIl"]
            ),
            st.one_of(st.binary(max_size=40), st.binary(max_size=40).map(zlib.compress)),
        ),
        max_size=6,
    ),
    st.tuples(
        SIZES,
        SIZES,
        st.sampled_from([1, 2, 4, 8, 16, 3]),
        st.sampled_from([0, 2, 3, 4, 6, 1]),
        st.integers(0, 2),
    ),
    st.booleans(),
)
@FUZZ
def test_random_png_chunks(
    chunks: list[tuple[bytes, bytes]], header: tuple[int, int, int, int, int], whole: bool
) -> None:
    """Right checksums throughout, so that what is behind them is reached; half of them with all pixels."""
    columns, rows, depth, colour, interlaced = header
    body = png_chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, depth, colour, 0, 0, interlaced))
    if whole and rows * columns <= 4900:
        line = 1 + -(-columns * depth * {2: 3, 4: 2, 6: 4}.get(colour, 1) // 8)
        chunks = [*chunks, (b"IDAT", zlib.compress(bytes(position % 5 for position in range(rows * line))))]
    body += b"".join(png_chunk(kind, content) for kind, content in chunks) + png_chunk(b"IEND", b"")
    enter(b"\x89PNG\r\n\x1a\n" + body)


@given(st.lists(st.tuples(st.integers(0xC0, 0xFE), st.binary(max_size=40)), max_size=5), st.integers(0, 600))
@FUZZ
def test_random_jpeg_markers(segments: list[tuple[int, bytes]], place: int) -> None:
    """Segments of any kind put between those of a good file."""
    whole = SEEDS["jpeg"]
    places = [
        2,
        *(at for at in range(2, len(whole) - 1) if whole[at] == 0xFF and whole[at + 1] in (0xC0, 0xC4, 0xDA)),
    ]
    at = places[place % len(places)]
    extra = b"".join(
        bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content for marker, content in segments
    )
    enter(whole[:at] + extra + whole[at:])
