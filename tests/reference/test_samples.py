"""The committed sample radiographs: what they show and say of themselves, and that they can be remade."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pydicom
import pytest

from promptray.runtime.bundle.image_rules import Door, Greyscale
from promptray.runtime.door import open_picture
from reference.derived_dicom import ENCODINGS, derived_uid, write_dicom
from reference.radiographs import ATTRIBUTION, LICENCE, Radiograph, read_radiographs
from reference.samples import GOLDEN, SAMPLES, choose, write_golden, write_samples

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "samples"
GOLDEN_FOLDER = ROOT / "export" / "golden"
DICOM = sorted(FOLDER.glob("*.dcm"))


def grey(path: Path) -> np.ndarray:
    door = Door(modalities=["CR", "DX"])
    modality = None if path.suffix == ".dcm" else "DX"
    return open_picture(path, door, Greyscale(), modality=modality, strict=True).grey


def test_a_dozen_pictures_each_as_png_and_dicom() -> None:
    assert len(list(FOLDER.glob("*.png"))) == sum(SAMPLES.values()) == 12
    assert len(DICOM) == 12 == 2 * len(ENCODINGS)


@pytest.mark.parametrize("path", DICOM, ids=lambda path: path.stem)
def test_a_dicom_sample_shows_the_grey_of_its_png(path: Path) -> None:
    np.testing.assert_array_equal(grey(path), grey(path.with_suffix(".png")))


@pytest.mark.parametrize("path", DICOM, ids=lambda path: path.stem)
def test_a_dicom_sample_says_that_it_is_derived_and_names_no_one(path: Path) -> None:
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    assert dataset.ImageType[0] == "DERIVED"
    assert ATTRIBUTION in dataset.DerivationDescription
    assert LICENCE in dataset.DerivationDescription
    assert (dataset.PatientName, dataset.BurnedInAnnotation) == ("ANON^SAMPLE", "NO")
    assert not dataset.PatientBirthDate
    assert dataset.PatientIdentityRemoved == "YES"
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        assert pydicom.uid.UID(dataset[keyword].value).is_valid
        assert dataset[keyword].value.startswith("2.25.")


def test_the_encodings_exercise_the_chain() -> None:
    datasets = [pydicom.dcmread(path, stop_before_pixels=True) for path in DICOM]
    assert {dataset.Modality for dataset in datasets} == {"CR", "DX"}
    assert {dataset.BitsStored for dataset in datasets} == {8, 10, 12, 14}
    assert sum(dataset.PhotometricInterpretation == "MONOCHROME1" for dataset in datasets) == 2
    assert any(dataset.RescaleIntercept != 0 for dataset in datasets)


def test_uids_differ_between_levels_and_images() -> None:
    assert len({derived_uid(name, level) for name in "ab" for level in ("instance", "series", "study")}) == 6


def test_every_sample_is_attributed() -> None:
    with (FOLDER / "ATTRIBUTION.csv").open(newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    pictures = {path.name for path in FOLDER.iterdir() if path.suffix in (".png", ".dcm")}
    assert {row["file"] for row in rows} == pictures
    assert {(row["licence"], row["attribution"]) for row in rows} == {(LICENCE, ATTRIBUTION)}


def test_every_golden_input_is_small_and_attributed() -> None:
    note = (GOLDEN_FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8")
    pictures = sorted(GOLDEN_FOLDER.glob("*.png"))
    assert len(pictures) == sum(GOLDEN.values()) == 16
    assert all(f"| {path.name} |" in note for path in pictures)
    assert all(max(grey(path).shape) == 256 for path in pictures)
    assert sum(path.stat().st_size for path in pictures) <= 800_000
    assert ATTRIBUTION in note


def test_committed_image_data_stays_small() -> None:
    files = [*FOLDER.iterdir(), *GOLDEN_FOLDER.iterdir()]
    assert sum(path.stat().st_size for path in files) <= 6_000_000


def test_a_patient_with_images_of_two_classes_is_not_chosen() -> None:
    def radiograph(number: int, label: str, patient: str) -> Radiograph:
        return Radiograph(f"id-{number}", f"{number}.jpeg", Path(), label, patient)

    mixed = [radiograph(1, "bacterial", "p"), radiograph(2, "viral", "p")]
    clean = [radiograph(3, "viral", "q"), radiograph(4, "viral", "q")]
    taken: set[str] = set()
    assert {r.patient for r in choose(mixed + clean, {"viral": 1}, taken)} == taken == {"q"}
    with pytest.raises(ValueError, match="too few patients of class 'viral'"):
        choose(mixed + clean, {"viral": 1}, taken)


def test_the_script_remakes_the_dicom_files_from_their_pictures(tmp_path: Path) -> None:
    with (FOLDER / "ATTRIBUTION.csv").open(newline="", encoding="utf-8") as table:
        encodings = {row["file"]: row["changes"].rpartition("DICOM: ")[2] for row in csv.DictReader(table)}
    for path in DICOM:
        (encoding,) = (one for one in ENCODINGS if str(one) == encodings[path.name])
        image_id = pydicom.dcmread(path, stop_before_pixels=True).PatientID.removeprefix("SAMPLE-")
        write_dicom(grey(path.with_suffix(".png")), tmp_path / path.name, encoding, image_id)
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_the_data_remake_the_same_files(data_dir: Path | None, tmp_path: Path) -> None:
    if data_dir is None:
        pytest.skip(
            "needs the collection (--data DIR); the test above remakes what the committed files allow"
        )
    radiographs, taken = read_radiographs(data_dir), set[str]()
    write_samples(choose(radiographs, SAMPLES, taken), tmp_path / "samples")
    write_golden(choose(radiographs, GOLDEN, taken), tmp_path / "golden")
    for made, committed in ((tmp_path / "samples", FOLDER), (tmp_path / "golden", GOLDEN_FOLDER)):
        assert {p.name for p in made.iterdir()} == {p.name for p in committed.iterdir()}
        for path in made.glob("*.dcm"):
            assert path.read_bytes() == (committed / path.name).read_bytes()
        for path in made.glob("*.png"):  # another zlib may compress the same pixels otherwise
            np.testing.assert_array_equal(grey(path), grey(committed / path.name))
