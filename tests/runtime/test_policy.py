"""The policy table: contradictions refuse, absences warn, suspicions only warn."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import uid
from pydicom.config import IGNORE
from pydicom.dataset import Dataset

from promptray.runtime import policy
from promptray.runtime.bundle.image_rules import Door, Greyscale
from promptray.runtime.door import open_picture
from promptray.runtime.errors import ImageError
from promptray.runtime.image_file import decode_jpeg
from promptray.runtime.picture import NOTICES, Notice
from tests.dicom_factory import CHEST, NAME, coded, dataset, file

TESTS = Path(__file__).parents[1]
SAMPLE = TESTS.parent / "examples" / "samples" / "normal-1.dcm"
DICOM_FILES = TESTS / "data" / "dicom" / "files"
ATTACKS = TESTS / "attacks" / "images"

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")  # of the objects made here


def check(changes: dict[str, Any], door: Door = CHEST, declared: str | None = None) -> list[str]:
    return [notice.code for notice in policy.check_tags(dataset(**changes), door, declared)]


def code_of(changes: dict[str, Any], door: Door = CHEST, declared: str | None = None) -> str:
    with pytest.raises(ImageError) as refusal:
        check(changes, door, declared)
    return refusal.value.code


def test_a_fitting_object_passes_without_notice() -> None:
    assert check({}) == []
    assert check({"Modality": "dx"}, declared="DX") == []
    assert check({"PatientSpeciesDescription": "Homo sapiens"}) == []


def test_absent_tags_are_noted() -> None:
    assert check({"Modality": None}) == ["modality-absent"]
    assert check({"Modality": ""}) == ["modality-absent"]
    assert check({"BodyPartExamined": None}) == ["body-part-absent"]
    assert check({"BodyPartExamined": None}, Door(modalities=["CR"])) == []  # the door does not ask


def test_burned_in_text_is_noted_where_it_is_stated() -> None:
    assert check({"BurnedInAnnotation": "YES"}) == ["burned-in-text"]
    assert check({"BurnedInAnnotation": "NO"}) == []


def test_a_declared_modality_stands_in_for_the_tag_but_never_overrules_it() -> None:
    assert check({"Modality": None}, declared="CR") == []
    assert code_of({"Modality": None}, declared="MG") == "image.modality"
    assert code_of({"Modality": "CR"}, declared="DX") == "image.modality"


@pytest.mark.parametrize("modality", ["MG", "CT", "RG", "SR", "CR1", "C"])
def test_another_modality_is_refused(modality: str) -> None:
    assert code_of({"Modality": modality}) == "image.modality"


@pytest.mark.parametrize("part", ["BREAST", "breast", "LEFT BREAST", "BREAST, LEFT", " BREAST "])
def test_a_refused_body_part_is_refused_as_a_whole_word(part: str) -> None:
    assert code_of({"BodyPartExamined": part}) == "image.contradiction"


@pytest.mark.parametrize(
    ("rule", "part"),
    [
        ("breast", "BREAST"),
        ("Breast ", "left breast"),
        ("C-SPINE", "C-SPINE"),
        ("C-SPINE", "C SPINE"),
        ("c_spine", "LATERAL C-SPINE"),
        ("Hüfte", "HÜFTE"),
    ],
)
def test_rule_and_tag_are_compared_by_their_words(rule: str, part: str) -> None:
    door = Door(modalities=["CR"], refused_body_parts=["SKULL", rule])
    assert code_of({"BodyPartExamined": part}, door) == "image.contradiction"
    assert check({"BodyPartExamined": "CHEST"}, door) == []


@pytest.mark.parametrize("part", ["CHEST", "NON GRID CHEST", "BREASTBONE", "THORAX"])
def test_other_body_parts_pass(part: str) -> None:
    assert check({"BodyPartExamined": part}) == []


def test_an_animal_is_refused_where_its_species_is_stated() -> None:
    assert code_of({"PatientSpeciesDescription": "Canis lupus familiaris"}) == "image.contradiction"


@pytest.mark.parametrize(
    "species",
    [
        coded("448771007", meaning="Canis lupus familiaris"),
        coded("448771007", meaning="Homo sapiens"),
        coded("L-88124", "SRT"),
        coded("337915000", "99LOCAL"),
        coded(None, None, "Felis catus"),
        coded("337915000") + coded("448169003"),
    ],
)
def test_an_animal_is_refused_where_its_species_is_coded(species: list[Dataset]) -> None:
    with pytest.raises(ImageError, match="PatientSpeciesCodeSequence") as refusal:
        check({"PatientSpeciesCodeSequence": species})
    assert refusal.value.code == "image.contradiction"
    assert refusal.value.found is None


@pytest.mark.parametrize(
    "species",
    [
        coded("337915000", meaning="Mensch"),
        coded("L-85003", "SRT"),
        coded("L-85B00", "SRT"),
        coded("L-85B00", "99SDM"),
        coded(None, None, "Homo sapiens"),
        coded(None, None),
        [],
    ],
)
def test_a_human_passes_by_any_code_of_the_standard(species: list[Dataset]) -> None:
    assert check({"PatientSpeciesCodeSequence": species}) == []


def test_a_species_that_cannot_be_read_is_refused_without_its_value() -> None:
    several = coded("337915000")
    several[0].CodeValue = [NAME, "337915000"]
    no_sequence = dataset()
    no_sequence.add_new("PatientSpeciesCodeSequence", "LO", NAME)
    for made in (dataset(PatientSpeciesCodeSequence=several), no_sequence):
        with pytest.raises(ImageError) as refusal:
            policy.check_tags(made, CHEST, None)
        assert refusal.value.code == "dicom.tags"
        assert NAME not in str(refusal.value)


@pytest.mark.parametrize(
    "region",
    [
        coded("T-04000", "SRT", "Breast"),
        coded("76752008", meaning="Brust"),
        coded("80248007", meaning="Mamma links"),
        coded("63762007", meaning="Both breasts"),
        coded("M1", "99LOCAL", "Left breast"),
        coded("BREAST", "99LOCAL"),
        coded(None, None, "breast"),
        coded("51185008", meaning="Chest") + coded("76752008"),
    ],
)
@pytest.mark.parametrize("part", [None, "CHEST"])
def test_a_refused_body_part_is_refused_as_a_coded_region(region: list[Dataset], part: str | None) -> None:
    with pytest.raises(ImageError, match="AnatomicRegionSequence") as refusal:
        check({"BodyPartExamined": part, "AnatomicRegionSequence": region})
    assert refusal.value.code == "image.contradiction"
    assert check({"AnatomicRegionSequence": region}, Door(modalities=["CR"])) == []


def test_other_coded_regions_pass_and_leave_the_body_part_absent() -> None:
    for region in (
        coded("51185008", meaning="Chest"),
        coded("M1", "99LOCAL", "Brust"),
        coded(None, None),
        [],
    ):
        assert check({"AnatomicRegionSequence": region}) == []
        changes = {"AnatomicRegionSequence": region, "BodyPartExamined": None}
        assert check(changes) == ["body-part-absent"]
    several = coded("51185008")
    several[0].CodeMeaning = ["Chest", "breast"]  # the separator of values may be half a letter
    assert code_of({"AnatomicRegionSequence": several}) == "image.contradiction"


@pytest.mark.parametrize(
    ("sop_class", "modalities"),
    [
        (uid.DigitalXRayImageStorageForProcessing, ["DX"]),
        (uid.DigitalMammographyXRayImageStorageForProcessing, ["DX", "MG"]),
        (uid.DigitalIntraOralXRayImageStorageForProcessing, ["DX", "IO"]),
        (uid.BreastProjectionXRayImageStorageForProcessing, ["DX", "MG"]),
        (uid.DigitalMammographyXRayImageStorageForPresentation, ["DX"]),
        (uid.BreastTomosynthesisImageStorage, ["DX"]),
        (uid.BreastProjectionXRayImageStorageForPresentation, ["DX"]),
        (uid.DigitalIntraOralXRayImageStorageForPresentation, ["DX", "MG"]),
    ],
)
def test_another_sop_class_is_refused(sop_class: str, modalities: list[str]) -> None:
    with pytest.raises(ImageError, match="SOPClassUID") as refusal:
        check({"Modality": "DX", "SOPClassUID": sop_class}, Door(modalities=modalities))
    assert refusal.value.code == "image.contradiction"


def test_a_sop_class_that_fits_passes() -> None:
    for sop_class, modality in (
        (uid.DigitalXRayImageStorageForPresentation, "DX"),
        (uid.DigitalMammographyXRayImageStorageForPresentation, "MG"),
        (uid.DigitalIntraOralXRayImageStorageForPresentation, "IO"),
        (None, "DX"),
    ):
        changes = {"Modality": modality, "SOPClassUID": sop_class}
        assert check(changes, Door(modalities=[modality])) == []
    assert check({"SOPClassUID": uid.SecondaryCaptureImageStorage}) == ["secondary-capture"]
    for text, code in (
        (uid.DigitalXRayImageStorageForProcessing + "\t", "image.contradiction"),
        (uid.DigitalXRayImageStorageForProcessing + "x", "dicom.tags"),
    ):
        assert code_of({"SOPClassUID": uid.UID(text, validation_mode=IGNORE)}) == code


@pytest.mark.parametrize("intent", ["FOR PROCESSING", "for processing ", "FOR_PROCESSING", "FOR  PROCESSING"])
def test_raw_detector_data_are_refused(intent: str) -> None:
    data = file(Modality="DX", PresentationIntentType=intent)
    with pytest.raises(ImageError, match="PresentationIntentType") as refusal:
        open_picture(data, CHEST, Greyscale())
    assert refusal.value.code == "image.contradiction"
    shown = file(Modality="DX", PresentationIntentType="FOR PRESENTATION")
    assert open_picture(shown, CHEST, Greyscale()).notices == ()


def test_a_tag_that_is_not_text_is_refused() -> None:
    with pytest.raises(ImageError) as refusal:
        policy.check_tags(dataset(Modality=["CR", "DX"]), CHEST, None)
    assert refusal.value.code == "dicom.tags"


def test_every_notice_of_the_table_is_registered() -> None:
    assert {rule.absent for rule in policy.RULES if rule.absent} <= NOTICES.keys()
    with pytest.raises(ValueError, match="unregistered"):
        Notice("no-such-code", "")


def test_sources_without_tags_must_be_declared() -> None:
    policy.check_declared(CHEST, "CR")
    for declared, code in ((None, "image.modality-undeclared"), ("CT", "image.modality")):
        with pytest.raises(ImageError) as refusal:
            policy.check_declared(CHEST, declared)
        assert refusal.value.code == code


def trunk(background: int = 20) -> NDArray[np.uint8]:
    """A crude film of a trunk: bright spine, dark lungs, darker air around."""
    grey = np.full((200, 160), background, np.uint8)
    grey[:, 20:140] = 120
    grey[30:150, 30:70] = grey[30:150, 90:130] = 60
    grey[:, 70:90] = 200
    return grey


def test_inversion_is_suspected() -> None:
    assert not policy.looks_inverted(trunk())
    assert policy.looks_inverted(255 - trunk())
    assert not policy.looks_inverted(np.full((100, 100), 7, np.uint8))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 2)])
def test_thin_pictures_raise_no_error(shape: tuple[int, int]) -> None:
    assert not policy.looks_inverted(np.full(shape, 9, np.uint8))


def test_inversion_on_real_films(data_dir: Path | None) -> None:
    if data_dir is None:
        return  # the rule itself is tested above; these counts need the radiographs
    with (data_dir / "cxr" / "labels.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    suspected, missed = [], []
    for row in rows:
        grey = decode_jpeg((data_dir / "cxr" / row["file"]).read_bytes())
        suspected += [row["view"]] if policy.looks_inverted(grey) else []
        missed += [] if policy.looks_inverted(255 - grey) else [row["view"]]
    assert suspected == ["L"]
    assert set(missed) <= {"L"}


def test_an_empty_data_set_raises_only_notices() -> None:
    assert [notice.code for notice in policy.check_tags(Dataset(), CHEST, None)] == [
        "modality-absent",
        "body-part-absent",
    ]
