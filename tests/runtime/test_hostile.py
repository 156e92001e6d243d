"""Broken and hostile input: a picture or a PromptRayError, quickly; never a traceback, never a hang."""

import io
import struct
import time
import warnings
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

from promptray.runtime.bundle.manifest import Greyscale
from promptray.runtime.door import open_picture
from promptray.runtime.errors import ImageError
from promptray.runtime.picture import Picture
from tests import dicom_factory as factory

FILES = Path(__file__).parents[1] / "data" / "dicom" / "files"
SECONDS = 10.0
FUZZ = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))


def enter(source: Any) -> Picture | ImageError:
    """Open a source; any exception but a refusal, any warning, and any long wait fails the test."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return open_picture(source, factory.CHEST, Greyscale(), modality=_declared(source))
        except ImageError as error:
            return error
        finally:
            assert time.perf_counter() - start < SECONDS


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
    made = factory.dataset()
    for keyword in changed:
        if keyword in made:
            del made[keyword]
    whole = factory.encode(made)
    pixels = whole.index(b"\xe0\x7f\x10\0")
    extra = b"".join(element(keyword, value) for keyword, value in changed.items())
    enter(whole[:pixels] + extra + whole[pixels:])


@given(st.integers(0, 255), st.integers(0, 2000), st.binary(max_size=300))
@FUZZ
def test_random_code_streams(name: int, start: int, body: bytes) -> None:
    compressed = [name for name in SEEDS if any(mark in name for mark in ("J", "jpeg", "RLE"))]
    whole = bytearray(SEEDS[compressed[name % len(compressed)]])
    offset = max(0, len(whole) - 3000) + start
    whole[offset : offset + len(body)] = body
    enter(bytes(whole))


def test_deep_nesting() -> None:
    sequence = b"\x40\0\x30\xa7SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff"
    whole = factory.file()
    pixels = whole.index(b"\xe0\x7f\x10\0")
    outcome = enter(whole[:pixels] + sequence * 20_000 + whole[pixels:])
    assert isinstance(outcome, ImageError)
    assert outcome.code in ("image.broken", "dicom.no-pixels")


def test_many_elements_and_many_items() -> None:
    whole = factory.file()
    pixels = whole.index(b"\xe0\x7f\x10\0")
    outcome = enter(whole[:pixels] + b"\x41\0\x01\0LO\0\0" * 100_000 + whole[pixels:])
    assert isinstance(outcome, Picture)
    made = factory.dataset(np.stack([factory.ramp()] * 2))
    made.PerFrameFunctionalGroupsSequence = [Dataset() for _ in range(20_000)]
    assert isinstance(enter(factory.encode(made)), ImageError)  # a frame must be chosen


def test_absurd_lengths() -> None:
    whole = factory.file()
    pixels = whole.index(b"\xe0\x7f\x10\0")
    for length in (0, 1, 2, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF):
        changed = whole[: pixels + 8] + struct.pack("<I", length) + whole[pixels + 12 :]
        outcome = enter(changed)
        assert isinstance(outcome, ImageError), length
    made = factory.dataset(Rows=65535, Columns=65535)
    outcome = enter(factory.encode(made))
    assert isinstance(outcome, ImageError)
    assert outcome.code == "image.too-large"
    assert "67108864" in str(outcome)


def test_many_frames_cost_nothing_before_one_is_chosen() -> None:
    outcome = enter(factory.file(NumberOfFrames="1000000"))
    assert isinstance(outcome, ImageError)
    assert outcome.code == "dicom.frame"
