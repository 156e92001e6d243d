"""Objects that end early, hold no pixels, or look like something else."""

import struct

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from promptray.runtime.bundle.manifest import Greyscale
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
