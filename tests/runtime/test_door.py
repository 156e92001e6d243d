"""The door as its callers use it: sources, detection, declarations, frames, strictness, timing."""

import io
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from promptray.runtime.bundle.image_rules import Door, Greyscale
from promptray.runtime.dicom.photometric import Photometric
from promptray.runtime.door import open_picture
from promptray.runtime.errors import BundleError, ImageError
from promptray.runtime.picture import Picture
from tests import dicom_factory as factory
from tests.dicom_factory import CHEST

EXPECTED = np.floor(factory.ramp() / 4095 * 255 + 0.5).astype(np.uint8)


def enter(source: Any, **options: Any) -> Picture:
    return open_picture(source, options.pop("door", CHEST), Greyscale(), **options)


def refusal_of(source: Any, **options: Any) -> ImageError:
    with pytest.raises(ImageError) as refusal:
        enter(source, **options)
    return refusal.value


def image_bytes(kind: str, grey: np.ndarray = EXPECTED) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, kind)
    return stream.getvalue()


def test_a_dicom_file_by_path_bytes_file_object_and_data_set(tmp_path: Path) -> None:
    data = factory.file()
    path = tmp_path / "misleading.png"
    path.write_bytes(data)
    with path.open("rb") as stream:
        sources = [path, str(path), data, io.BytesIO(data), stream, factory.dataset()]
        for source in sources:
            picture = enter(source)
            np.testing.assert_array_equal(picture.grey, EXPECTED)
            assert picture.grey.flags.c_contiguous


def test_source_facts_of_a_dicom_file() -> None:
    source = enter(factory.file(PixelSpacing=[0.2, 0.1])).source
    assert (source.kind, source.rows, source.columns) == ("dicom", 40, 48)
    assert (source.modality, source.modality_declared, source.frame) == ("CR", False, None)
    assert source.sop_instance_uid == "1.2.3.1"
    assert source.study_instance_uid == "1.2.3.2"
    assert source.series_instance_uid == "1.2.3.3"
    assert source.pixel_spacing == (0.2, 0.1)
    assert source.pixel_spacing_source == "PixelSpacing"
    assert source.transfer_syntax == ExplicitVRLittleEndian


@pytest.mark.parametrize("implicit", [True, False])
def test_a_film_without_preamble_and_file_meta(implicit: bool) -> None:
    data = factory.encode_bare(factory.dataset(), implicit=implicit)
    picture = enter(data)
    np.testing.assert_array_equal(picture.grey, EXPECTED)
    assert [notice.code for notice in picture.notices] == ["file-meta-absent"]
    syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    assert picture.source.transfer_syntax == syntax
    assert refusal_of(data, strict=True).code == "image.tag-missing"


def test_file_meta_without_preamble() -> None:
    picture = enter(factory.file()[132:])
    np.testing.assert_array_equal(picture.grey, EXPECTED)
    assert picture.notices == ()


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_png_and_jpeg_need_a_declared_modality(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.dcm"
    path.write_bytes(image_bytes(kind))
    assert refusal_of(path).code == "image.modality-undeclared"
    assert refusal_of(path, modality="MG").code == "image.modality"
    picture = enter(path, modality=" cr ")
    assert (picture.source.kind, picture.source.modality) == (kind, "CR")
    assert picture.source.modality_declared
    assert picture.grey.shape == EXPECTED.shape
    assert picture.notices == ()


def test_arrays() -> None:
    assert refusal_of(EXPECTED).code == "image.modality-undeclared"
    np.testing.assert_array_equal(enter(EXPECTED, modality="DX").grey, EXPECTED)
    facts = Photometric(bits_stored=12, window=(2048.0, 4096.0))
    picture = enter(factory.ramp(), modality="DX", photometric=facts)
    np.testing.assert_array_equal(picture.grey, EXPECTED)
    assert picture.source.kind == "array"


def test_photometric_facts_belong_to_arrays() -> None:
    with pytest.raises(TypeError, match="photometric"):
        enter(factory.file(), photometric=Photometric())


def test_absences_are_notices_and_refusals_in_strict_mode() -> None:
    for changes, code in (
        ({"Modality": None}, "modality-absent"),
        ({"BodyPartExamined": None}, "body-part-absent"),
        ({"WindowCenter": None, "WindowWidth": None}, "window-absent"),
    ):
        data = factory.file(**changes)
        assert [notice.code for notice in enter(data).notices] == [code]
        assert refusal_of(data, strict=True).code == "image.tag-missing"
    assert enter(factory.file(), strict=True).notices == ()
    assert enter(factory.file(Modality=None), strict=True, modality="CR").source.modality_declared


def test_without_a_window_the_full_range_is_stretched() -> None:
    pixels = factory.ramp() // 4 + 100
    picture = enter(factory.file(pixels, WindowCenter=None, WindowWidth=None))
    assert (picture.grey.min(), picture.grey.max()) == (0, 255)


def test_frames() -> None:
    pixels = np.stack([factory.ramp(), factory.ramp()[::-1]])
    data = factory.file(pixels)
    assert refusal_of(data).code == "dicom.frame"
    assert refusal_of(data, frame=3).code == "dicom.frame"
    second = enter(data, frame=2)
    np.testing.assert_array_equal(second.grey, EXPECTED[::-1])
    assert second.source.frame == 2
    assert refusal_of(image_bytes("png"), modality="CR", frame=2).code == "dicom.frame"


@pytest.mark.parametrize("kind", ["dicom", "png", "array"])
@pytest.mark.parametrize(
    ("declared", "code"),
    [
        ({"modality": 5}, "image.modality-undeclared"),
        ({"modality": b"DX"}, "image.modality-undeclared"),
        ({"frame": "1"}, "dicom.frame"),
        ({"frame": 1.0}, "dicom.frame"),
        ({"frame": True}, "dicom.frame"),
    ],
    ids=repr,
)
def test_what_is_declared_in_another_type_is_refused(kind: str, declared: dict[str, Any], code: str) -> None:
    source = {"dicom": factory.file(), "png": image_bytes("png"), "array": EXPECTED}[kind]
    error = refusal_of(source, **{"modality": "CR", **declared})
    assert error.code == code
    assert error.found == type(next(iter(declared.values()))).__name__
    assert enter(source, modality="CR", frame=np.int64(1)).grey.shape == EXPECTED.shape


def test_small_and_constant_pictures_are_refused() -> None:
    assert refusal_of(factory.file(factory.ramp(31, 90))).code == "image.too-small"
    small = msgspec.structs.replace(CHEST, minimum_side=30)
    assert enter(factory.file(factory.ramp(31, 90)), door=small).grey.shape == (31, 90)
    flat = np.full((40, 40), 7, np.uint16)
    assert refusal_of(factory.file(flat)).code == "image.constant"
    assert refusal_of(factory.file(WindowCenter=60000, WindowWidth=2)).code == "image.constant"
    assert refusal_of(np.zeros((40, 40), np.uint8), modality="CR").code == "image.constant"


def test_an_inverted_film_is_noted() -> None:
    film = np.full((200, 160), 3500, np.uint16)
    film[:, 70:90] = 100
    picture = enter(factory.file(film))
    assert [notice.code for notice in picture.notices] == ["inversion-suspected"]
    assert enter(factory.file(film, PhotometricInterpretation="MONOCHROME1")).notices == ()


def test_the_name_of_the_file_is_in_the_message_and_its_folder_is_not(tmp_path: Path) -> None:
    path = tmp_path / "broken.dcm"
    path.write_bytes(factory.file()[:-1000])
    error = refusal_of(path)
    assert error.code == "image.broken"
    assert error.artefact == "broken.dcm"
    assert str(tmp_path) not in str(error)
    with path.open("rb") as stream:
        assert refusal_of(stream).artefact == "broken.dcm"


def test_what_is_not_there_or_not_a_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.dcm", tmp_path, "", "\0"):
        error = refusal_of(path)
        assert error.code == "image.not-found"
        assert str(tmp_path) not in str(error)
    assert refusal_of(Path("/dev/zero")).code == "image.not-found"


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (b"", "image.broken"),
        (b"GIF89a" + bytes(200), "image.format"),
        (bytes(200), "image.format"),
        (b"%PDF-1.7\n" + b"x" * 400, "image.format"),
        (io.StringIO("text"), "image.format"),
        (None, "image.format"),
        (42, "image.format"),
        ([[1, 2], [3, 4]], "image.format"),
    ],
)
def test_other_sources_are_refused(source: object, code: str) -> None:
    assert refusal_of(source, modality="CR").code == code


def test_a_greyscale_rule_of_a_later_version_is_refused() -> None:
    later = msgspec.structs.replace(Greyscale(), rounding="half-even")
    with pytest.raises(BundleError):
        open_picture(factory.file(), CHEST, later)


def test_timing_has_its_stages() -> None:
    for picture in (enter(factory.file()), enter(EXPECTED, modality="CR")):
        assert picture.timing.keys() == {"read", "decode", "window", "check"}
        assert all(value >= 0 for value in picture.timing.values())


def test_a_deflated_file_and_a_deflated_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    data = factory.encode(factory.dataset(), DeflatedExplicitVRLittleEndian)
    np.testing.assert_array_equal(enter(data).grey, EXPECTED)
    monkeypatch.setattr("promptray.runtime.dicom.read.MAX_INFLATED_BYTES", 3000)
    error = refusal_of(data)
    assert error.code == "image.too-large"
    assert "3000" in str(error)


def test_a_file_beyond_the_limit_is_refused_unread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "sparse.dcm"
    with path.open("wb") as stream:
        stream.truncate(600 * 1024 * 1024)
    error = refusal_of(path)
    assert error.code == "image.too-large"
    assert "536870912" in str(error)


def test_a_data_set_is_not_changed() -> None:
    made = factory.dataset()
    before = made.to_json()
    enter(made)
    assert made.to_json() == before


def test_the_door_may_be_entered_from_many_threads() -> None:
    data, failures = factory.file(), []

    def work() -> None:
        for _ in range(20):
            if not np.array_equal(enter(data).grey, EXPECTED):
                failures.append("other pixels")

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_mammography_door_takes_what_a_chest_door_refuses() -> None:
    door = Door(modalities=["MG"], minimum_side=16)
    data = factory.file(Modality="MG", BodyPartExamined="BREAST")
    assert refusal_of(data).code == "image.modality"
    assert enter(data, door=door).source.modality == "MG"
