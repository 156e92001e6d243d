"""Planted patient data never come out: not in errors, notices, pictures, logs or warnings."""

import io
import logging
import pickle
import struct
import threading
import warnings
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

from promptray.runtime.bundle.manifest import Greyscale
from promptray.runtime.dicom.quiet import quietly
from promptray.runtime.dicom.read import KEYWORDS, read_dataset
from promptray.runtime.door import open_picture
from promptray.runtime.errors import ImageError
from tests import dicom_factory as factory

#: Fits into every text VR and contains what no number or UID may.
PLANT = "PLANTED^X"
TEXT_TAGS = [
    keyword for keyword in KEYWORDS if dictionary_VR(keyword) in ("UI", "CS", "DS", "IS", "LO", "ST", "UT")
]


def leaks(value: object, depth: int = 0) -> bool:
    """Tell whether a value, its text, its pickle or any chained exception quotes the plant."""
    if "PLANTED" in f"{value!s}{value!r}" or depth > 5:
        return True
    if isinstance(value, BaseException):
        chained = [value.__cause__, value.__context__, *value.args]
        return any(leaks(each, depth + 1) for each in chained if each is not None)
    return False


def planted(data: bytes, keyword: str) -> bytes:
    """Overwrite the value of a tag in an explicit little endian file, whatever its VR, with the plant."""
    tag = tag_for_keyword(keyword)
    assert tag is not None
    mark = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    start = data.index(mark, 132) + 8
    length = int.from_bytes(data[start - 2 : start], "little")
    value = PLANT.encode()[:length].ljust(length, b" ")
    return data[:start] + value + data[start + length :]


def attempt(source: Any, **options: Any) -> object:
    try:
        return open_picture(source, factory.CHEST, Greyscale(), **options)
    except ImageError as error:
        return error


@pytest.fixture
def silence(caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder) -> Any:
    """At the end, nothing at all was logged or warned."""
    caplog.set_level(logging.DEBUG)
    warnings.simplefilter("always")
    yield
    assert not caplog.records
    assert not list(recwarn)


def full_file() -> bytes:
    return factory.file(
        PatientSpeciesDescription="Homo sapiens",
        PresentationIntentType="FOR PRESENTATION",
        PixelSpacing=["0.20000000", "0.20000000"],
        ImagerPixelSpacing=["0.20000000", "0.20000000"],
        NominalScannedPixelSpacing=["0.20000000", "0.20000000"],
        NumberOfFrames="1         ",
        BurnedInAnnotation="NO        ",
        VOILUTFunction="LINEAR_EXACT",
        RescaleSlope="1.00000000",
        RescaleIntercept="0.00000000",
        PresentationLUTShape="IDENTITY",
        WindowCenter="2048.00000",
        WindowWidth="4096.00000",
        SOPInstanceUID="1.2.3.4.5.6.7.8.9",
        StudyInstanceUID="1.2.3.4.5.6.7.8.9",
        SeriesInstanceUID="1.2.3.4.5.6.7.8.9",
    )


@pytest.mark.usefixtures("silence")
@pytest.mark.parametrize("keyword", TEXT_TAGS)
def test_a_name_in_any_tag_that_is_read(keyword: str) -> None:
    data = planted(full_file(), keyword)
    assert PLANT.encode() in data or len(PLANT) > 8
    for strict in (False, True):
        outcome = attempt(data, strict=strict)
        assert not leaks(outcome), keyword
        if isinstance(outcome, ImageError):
            assert b"PLANTED" not in pickle.dumps(outcome)
            assert "PLANTED" not in str(outcome.to_json())


@pytest.mark.usefixtures("silence")
@pytest.mark.parametrize("keyword", ["Rows", "BitsStored", "SamplesPerPixel", "PixelRepresentation"])
def test_a_name_in_a_number(keyword: str) -> None:
    assert not leaks(attempt(planted(full_file(), keyword)))


@pytest.mark.usefixtures("silence")
def test_a_name_in_the_file_meta_and_the_character_set() -> None:
    whole = full_file()
    syntax = whole.index(b"1.2.840.10008.1.2.1")
    for data in (
        whole[:syntax] + PLANT.ljust(20).encode() + whole[syntax + 20 :],
        factory.file(SpecificCharacterSet="ISO_IR 100").replace(b"ISO_IR 100", PLANT.ljust(10).encode()),
    ):
        assert not leaks(attempt(data))


@pytest.mark.usefixtures("silence")
def test_a_name_in_a_lookup_table_and_in_pixels() -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [3, 0, 8])
    item.add_new("LUTData", "OW", PLANT.encode() + b" ")
    assert not leaks(attempt(factory.file(VOILUTSequence=[item])))
    made = factory.dataset()
    made.PixelData = PLANT.encode() * 2
    assert not leaks(attempt(factory.encode(made)))


@pytest.mark.usefixtures("silence")
def test_patient_tags_are_not_even_parsed() -> None:
    dataset = read_dataset(factory.file())
    assert "PatientName" not in dataset
    assert "SeriesDescription" not in dataset
    assert not leaks(dataset)


@pytest.mark.usefixtures("silence")
def test_a_data_set_with_lazy_values_of_a_wrong_kind() -> None:
    data = planted(full_file(), "RescaleSlope")
    assert not leaks(attempt(dcmread(io.BytesIO(data))))
    made = factory.dataset()
    made.Modality = None
    assert not leaks(attempt(made))


def test_pydicom_is_heard_again_after_a_call(recwarn: pytest.WarningsRecorder) -> None:
    warnings.simplefilter("always")
    attempt(planted(full_file(), "SOPInstanceUID"))
    assert not list(recwarn)
    _ = dcmread(io.BytesIO(planted(full_file(), "SOPInstanceUID"))).SOPInstanceUID
    assert list(recwarn)


def test_one_thread_reads_quietly_while_another_is_heard() -> None:
    inside, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        inside.set()
        go_on.wait(10)
        warnings.warn("quiet", stacklevel=1)

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        reader = threading.Thread(target=quietly, args=(hold, lambda: ImageError("image.broken", "x")))
        reader.start()
        assert inside.wait(10)
        warnings.warn("loud", stacklevel=1)
        go_on.set()
        reader.join()
    assert [str(each.message) for each in heard] == ["loud"]


def test_a_refusal_is_not_chained_to_the_exception_it_replaces() -> None:
    def fail() -> None:
        raise ValueError(PLANT)

    with pytest.raises(ImageError) as refusal:
        quietly(fail, lambda: ImageError("image.broken", "refused"))
    assert not leaks(refusal.value)
    assert refusal.value.__context__ is None


def test_array_values_are_not_quoted_beyond_their_range() -> None:
    error = attempt(np.array([["PLANTED"]]), modality="CR")
    assert not leaks(error)
