"""Objects that end early, hold no pixels, or look like something else."""

import struct
import zlib

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from promptray.runtime.bundle.image_rules import Greyscale
from promptray.runtime.dicom import read
from promptray.runtime.dicom.facts import check_has_pixels
from promptray.runtime.dicom.read import read_dataset
from promptray.runtime.door import open_picture
from promptray.runtime.errors import ImageError
from tests import dicom_factory as factory

_PREAMBLE = 132


def code_of(data: bytes) -> str:
    with pytest.raises(ImageError) as refusal:
        check_has_pixels(read_dataset(data))
    return refusal.value.code


def element_ends(data: bytes, *, implicit: bool) -> set[int]:
    """Where the elements of a data set without undefined lengths end, file meta information included."""
    position, ends = _PREAMBLE, {_PREAMBLE}
    while position + 8 <= len(data):
        group, length = struct.unpack_from("<H2xI", data, position)
        head = 8
        if group == 2 or not implicit:
            long = data[position + 4 : position + 6] in (b"OB", b"OW", b"SQ", b"UT", b"UN")
            head = 12 if long else 8
            length = struct.unpack_from("<I" if long else "<H", data, position + (8 if long else 6))[0]
        position += head + length
        ends.add(position)
    return ends


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_an_object_cut_within_an_element_is_broken(syntax: str) -> None:
    data = factory.encode(factory.dataset(), syntax)
    ends = element_ends(data, implicit=syntax == ImplicitVRLittleEndian)
    assert len(data) in ends
    for length in range(_PREAMBLE + 1, len(data)):
        code = code_of(data[:length])
        # Between two elements of the data set nothing tells a cut from an object without pixels.
        assert code == "image.broken" or (code == "dicom.no-pixels" and length in ends), length


def test_an_object_cut_within_a_sequence_is_broken() -> None:
    item = Dataset()
    item.WindowCenter, item.WindowWidth = 1, 2
    made = factory.dataset(SharedFunctionalGroupsSequence=[item], ReferencedStudySequence=[item])
    for keyword in ("SharedFunctionalGroupsSequence", "ReferencedStudySequence"):
        made[keyword].is_undefined_length = True
        made[keyword].value[0].is_undefined_length_sequence_item = True
    data = factory.encode(made)
    for tag in (b"\x08\0\x10\x11SQ", b"\0\x52\x29\x92SQ"):
        start = data.index(tag)
        end = data.index(b"\xfe\xff\xdd\xe0", start) + 8
        for length in range(start + 1, end):
            assert code_of(data[:length]) == "image.broken"


def test_a_directory_and_a_report_are_whole_objects_without_pixels() -> None:
    made = factory.dataset()
    del made.PixelData
    assert code_of(factory.encode(made)) == "dicom.no-pixels"
    directory = Dataset()
    directory.FileSetID = "TEST"
    assert code_of(factory.encode(directory)) == "image.broken"  # nothing in it that is ever read
    assert code_of(factory.encode(directory, sop_class="1.2.840.10008.1.3.10")) == "dicom.no-pixels"


def test_the_letters_of_the_preamble_within_a_bare_data_set() -> None:
    made = factory.dataset()
    expected = open_picture(factory.encode_bare(made), factory.CHEST, Greyscale())
    assert [notice.code for notice in expected.notices] == ["file-meta-absent"]
    for implicit in (True, False):
        made.InstitutionAddress = "A" * 100
        start = factory.encode_bare(made, implicit=implicit).index(b"AAAA")
        made.InstitutionAddress = ("A" * (128 - start) + "DICM").ljust(100, "A")
        bare = factory.encode_bare(made, implicit=implicit)
        assert bare[128:132] == b"DICM"
        np.testing.assert_array_equal(open_picture(bare, factory.CHEST, Greyscale()).grey, expected.grey)


def element(number: int, vr: bytes, value: bytes, *, implicit: bool = False) -> bytes:
    """An element of the file meta information."""
    head = struct.pack("<HH", 2, number)
    if implicit:
        return head + struct.pack("<I", len(value)) + value
    long = vr in (b"OB", b"OF", b"UC", b"UN", b"UT")
    return head + vr + (struct.pack("<2xI", len(value)) if long else struct.pack("<H", len(value))) + value


DEFLATED = DeflatedExplicitVRLittleEndian.encode()
#: Spellings of "deflated" that pydicom reads as such, or might; every one with a bomb behind it.
SPELLINGS = {
    "as it should be": element(0x10, b"UI", DEFLATED + b"\0"),
    "padded beyond 64 bytes": element(0x10, b"UI", DEFLATED.ljust(80, b"\0")),
    "padded with spaces": element(0x10, b"UI", DEFLATED.ljust(80)),
    "behind a space": element(0x10, b"UI", b" " + DEFLATED),
    "before a tab": element(0x10, b"UI", DEFLATED + b"\t"),
    "before a line's end": element(0x10, b"UI", DEFLATED + b"\n"),
    "of an implicit length": element(0x10, b"", DEFLATED + b"\0", implicit=True),
    "of another VR": element(0x10, b"LO", DEFLATED + b"\0"),
    "of no VR of the standard": element(0x10, b"UN", DEFLATED + b"\0"),
    "behind other floats": element(0x02, b"OF", bytes(8)) + element(0x10, b"UI", DEFLATED + b"\0"),
    "behind characters": element(0x03, b"UC", b"1.2 ") + element(0x10, b"UI", DEFLATED + b"\0"),
    "stated twice": element(0x10, b"UI", DEFLATED + b"\0") + element(0x10, b"UI", DEFLATED + b"\0"),
    "taken back": element(0x10, b"UI", b"1.2.840.10008.1.2.1\0") + element(0x10, b"UI", DEFLATED + b"\0"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("preamble", [bytes(128) + b"DICM", b""], ids=["", "bare"])
def test_a_deflated_bomb_is_never_parsed_however_its_transfer_syntax_is_spelt(
    spelling: str, preamble: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "MAX_INFLATED_BYTES", 1 << 20)
    made = factory.dataset(np.zeros((2048, 2048), np.uint16))
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = deflater.compress(factory.encode_bare(made, implicit=False)) + deflater.flush()
    assert len(bomb) < 1 << 17
    with pytest.raises(ImageError) as refusal:
        read_dataset(preamble + SPELLINGS[spelling] + bomb)
    assert refusal.value.code in ("image.too-large", "image.broken")


@pytest.mark.parametrize("keyword", ["Modality", "PhotometricInterpretation", "PixelData"])
@pytest.mark.parametrize("place", ["beside", "at the end"])
def test_a_tag_written_twice_is_refused(keyword: str, place: str) -> None:
    """pydicom keeps the last one, so a second value would win in silence."""
    made = factory.dataset()
    whole = factory.encode_bare(made, implicit=False)
    alone = Dataset()
    alone[keyword] = made[keyword]
    element = factory.encode_bare(alone, implicit=False)
    cut = whole.index(element) + len(element) if place == "beside" else len(whole)
    with pytest.raises(ImageError, match=f"{keyword} is written twice") as refusal:
        read_dataset(whole[:cut] + element + whole[cut:])
    assert refusal.value.code == "dicom.tags"
