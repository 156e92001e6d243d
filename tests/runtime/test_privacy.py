"""Planted patient data never come out: not in errors, notices, results, logs, warnings, consoles or sites."""

import io
import json
import logging
import os
import pickle
import struct
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom import dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

from promptray.cli import run
from promptray.runtime.bundle.image_rules import Greyscale
from promptray.runtime.dicom.quiet import quietly
from promptray.runtime.dicom.read import KEYWORDS, read_dataset
from promptray.runtime.door import open_picture
from promptray.runtime.errors import ImageError
from promptray.runtime.result import Refused
from promptray.runtime.scorer import Scorer
from tests import dicom_factory as factory
from tests.attacks.dicom import body, element, file
from tests.fuzz.small_bundle import write_small

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
        ViewPosition="MLO       ",
        ImageLaterality="L         ",
        Laterality="L         ",
        PartialView="NO        ",
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
    assert PLANT[:7].encode() in data, "the shortest value representation cuts it"
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


# Where patient data hide in files

#: A tag of each text VR that the runtime never reads.
UNREAD = {
    "AE": "RetrieveAETitle", "AS": "PatientAge", "CS": "PatientSex", "DA": "PatientBirthDate",
    "DS": "PatientWeight", "DT": "AcquisitionDateTime", "IS": "InstanceNumber", "LO": "PatientID",
    "LT": "AdditionalPatientHistory", "PN": "PatientName", "SH": "AccessionNumber",
    "ST": "InstitutionAddress", "TM": "StudyTime", "UC": "LongCodeValue", "UI": "FrameOfReferenceUID",
    "UR": "RetrieveURL", "UT": "LabelText",
}  # fmt: skip
FRAME_CONTENT, GROUPS = 0x00209111, 0x52009229


def private_film(**changes: tuple[bytes, bytes]) -> bytes:
    """A film with the plant in every text VR, in private tags, and in items of sequences, read and unread."""
    plant = PLANT.ljust(10).encode()
    tags = {tag_for_keyword(keyword) or 0: (vr.encode(), plant) for vr, keyword in UNREAD.items()}
    tags |= {0x00990010: (b"LO", plant), 0x00991001: (b"LO", plant), 0x00991002: (b"UN", plant * 1000)}
    inside = element(0x00100010, b"PN", plant) + element(0x00283003, b"LO", plant)
    item = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(inside)) + inside
    within = element(FRAME_CONTENT, b"SQ", item)
    tags[0x00400275] = (b"SQ", item)
    tags[GROUPS] = (b"SQ", b"\xfe\xff\x00\xe0" + struct.pack("<I", len(within)) + within)
    tags |= {tag_for_keyword(keyword) or 0: value for keyword, value in changes.items()}
    return file(body(tags))


def picture_files() -> dict[str, bytes]:
    """PNG and JPEG files with the plant in everything that is not a pixel."""
    grey, text, exif = Image.fromarray((factory.ramp() >> 4).astype(np.uint8)), PngInfo(), Image.Exif()
    text.add_text(PLANT, PLANT)
    text.add_text("zipped", PLANT, zip=True)
    text.add_itxt("international", PLANT, lang=PLANT, tkey=PLANT)
    text.add(b"tIME", b"PLANTED")
    exif[0x010E] = exif[0x013B] = PLANT  # image description, artist
    png, jpeg = io.BytesIO(), io.BytesIO()
    grey.save(png, "png", pnginfo=text, exif=exif, icc_profile=PLANT.encode())
    grey.save(jpeg, "jpeg", comment=PLANT, exif=exif)
    return {"film.png": png.getvalue(), "film.jpg": jpeg.getvalue(), "report.txt": PLANT.encode() * 20}


@pytest.mark.usefixtures("silence")
@pytest.mark.parametrize(
    "changes",
    [{}, {"Rows": (b"US", b"\x29\0")}, {"Modality": (b"CS", b"MG")}, {"WindowWidth": (b"DS", b"0 ")}],
    ids=str,
)
def test_every_text_vr_private_tags_and_items(changes: dict[str, tuple[bytes, bytes]]) -> None:
    data = private_film(**changes)
    assert data.count(b"PLANTED") > 1000
    for source in (data, data[:-100]):
        outcome = attempt(source)
        assert isinstance(outcome, ImageError) == bool(changes or source is not data)
        assert not leaks(outcome)


@pytest.mark.usefixtures("silence")
@pytest.mark.parametrize("name", picture_files())
def test_text_chunks_comments_and_exif(name: str) -> None:
    data = picture_files()[name]
    assert b"PLANTED" in data
    for source in (data, data[:-30], data[:60]):
        assert not leaks(attempt(source, modality="CR"))


# On the way out


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_small(folder)
    return folder / "small.bundle"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder named after the patient, as archives name theirs; its files are good and bad."""
    folder = tmp_path / "PLANTED^PATIENT" / "1.2.3"
    folder.mkdir(parents=True)
    files = {
        "film.dcm": private_film(),
        "other.dcm": private_film(Modality=(b"CS", b"MG")),
        "cut.dcm": private_film()[:-50],
    }
    for name, content in {**files, **picture_files()}.items():
        (folder / name).write_bytes(content)
    return folder


def found_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and b"PLANTED" in path.read_bytes()]


@pytest.mark.usefixtures("silence")
def test_results_sites_and_caches(bundle: Path, archive: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    with Scorer.open(bundle, site=site, threads=1) as scorer:
        scorer.prompts.add("rib fracture", "There is a rib fracture.", keep=True)
        outcomes = list(scorer.score_many(sorted(archive.iterdir()), modality="CR"))
    assert sum(isinstance(outcome, Refused) for outcome in outcomes) == 3
    for outcome in outcomes:
        assert not leaks(outcome.error if isinstance(outcome, Refused) else json.dumps(outcome.to_json()))
    assert not found_below(site)
    assert not found_below(Path(os.environ["HOME"]))


@pytest.mark.parametrize("form", ["--json", "--strict"])
def test_the_command_line(
    bundle: Path, archive: Path, capfd: pytest.CaptureFixture[str], form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for debug in ("", "1"):
        monkeypatch.setenv("PROMPTRAY_DEBUG", debug)
        assert run(["score", str(bundle), str(archive), "--modality", "CR", "--no-site", form]) == 1
        captured = capfd.readouterr()
        assert "film.dcm" in captured.out + captured.err
        assert "PLANTED" not in captured.out + captured.err


def test_an_unforeseen_fault_does_not_quote(
    bundle: Path, archive: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError(PLANT)

    monkeypatch.setattr("promptray.runtime.image_preparation.preprocess", fail)
    assert run(["score", str(bundle), str(archive), "--modality", "CR", "--no-site"]) == 1
    monkeypatch.setattr("promptray.runtime.scorer.Scorer.open", fail)
    assert run(["score", str(bundle), str(archive), "--no-site"]) == 3
    captured = capfd.readouterr()
    assert "score.fault" in captured.err
    assert "Internal fault: ValueError" in captured.err
    assert "PLANTED" not in captured.out + captured.err
