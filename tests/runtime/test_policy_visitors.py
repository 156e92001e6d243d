"""Who comes to the door, strict or not. Films are real radiographs (examples/samples, CC BY 4.0)."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread, uid
from pydicom.dataset import Dataset

from promptray.runtime.bundle.image_rules import Greyscale
from promptray.runtime.door import open_picture
from promptray.runtime.errors import ImageError
from tests.dicom_factory import CHEST, coded, encode_bare

TESTS = Path(__file__).parents[1]
SAMPLE = TESTS.parent / "examples" / "samples" / "normal-1.dcm"
DICOM_FILES = TESTS / "data" / "dicom" / "files"
ATTACKS = TESTS / "attacks" / "images"

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")  # of the objects made here


def film(**changes: Any) -> Dataset:
    """A real film with some tags changed; None deletes one."""
    made = dcmread(SAMPLE)
    made.PatientSpeciesDescription = "Homo sapiens"
    for keyword, value in changes.items():
        if value is None:
            made.pop(keyword, None)
        else:
            setattr(made, keyword, value)
    return made


def inverted(made: Dataset) -> Dataset:
    """The same film with its values turned round and its header untouched: a header that lies."""
    words = made.pixel_array
    made.PixelData = ((1 << made.BitsStored) - 1 - words).astype(words.dtype).tobytes()
    return made


def bare(made: Dataset) -> bytes:
    """The data set alone, without preamble and file meta information."""
    del made.file_meta
    return encode_bare(made)


def page() -> bytes:
    """A picture of a printed page."""
    grey = np.full((400, 300), 250, np.uint8)
    grey[40:360:12, 30:270] = np.random.default_rng(1).integers(0, 2, (27, 240)) * 230
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "jpeg")
    return stream.getvalue()


#: Visitor -> (source, declared modality, outcome, outcome under strict): a code, or the notices.
VISITORS: dict[str, tuple[Callable[[], Any], str | None, str | list[str], str | list[str]]] = {
    "a chest film": (film, None, [], []),
    "a mammogram": (lambda: film(Modality="MG"), None, "image.modality", "image.modality"),
    "a breast on a CR plate": (
        lambda: film(BodyPartExamined="BREAST"), None, "image.contradiction", "image.contradiction",
    ),
    "a dog": (
        lambda: film(PatientSpeciesDescription="Canis lupus familiaris"),
        None, "image.contradiction", "image.contradiction",
    ),
    "a dog by its code": (
        lambda: film(PatientSpeciesCodeSequence=coded("448771007"), PatientSpeciesDescription=None),
        None, "image.contradiction", "image.contradiction",
    ),
    "a breast by its code": (
        lambda: film(BodyPartExamined="", AnatomicRegionSequence=coded("T-04000", "SRT", "Breast")),
        None, "image.contradiction", "image.contradiction",
    ),
    "raw detector data by its class": (
        lambda: film(SOPClassUID=uid.DigitalXRayImageStorageForProcessing, PresentationIntentType=None),
        None, "image.contradiction", "image.contradiction",
    ),
    "a mammogram by its class": (
        lambda: film(Modality="DX", SOPClassUID=uid.DigitalMammographyXRayImageStorageForPresentation),
        None, "image.contradiction", "image.contradiction",
    ),
    "an inverted film with a lying header": (
        lambda: inverted(film()), None, ["inversion-suspected"], ["inversion-suspected"],
    ),
    "a film without file meta": (
        lambda: bare(film()), None, ["file-meta-absent"], "image.tag-missing",
    ),
    "a film without modality": (
        lambda: film(Modality=None), None, ["modality-absent"], "image.tag-missing",
    ),
    "a film without modality, declared": (lambda: film(Modality=None), "DX", [], []),
    "a film declared against its tag": (film, "MG", "image.modality", "image.modality"),
    "a film without body part": (
        lambda: film(BodyPartExamined=None), None, ["body-part-absent"], "image.tag-missing",
    ),
    "a film that does not state its sign": (
        lambda: film(PixelRepresentation=None), None, ["sign-absent"], "image.tag-missing",
    ),
    "a film captured from a screen": (
        lambda: film(SOPClassUID=uid.SecondaryCaptureImageStorage),
        None, ["secondary-capture"], ["secondary-capture"],
    ),
    "a scanned film of many frames": (
        lambda: film(SOPClassUID=uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage),
        None, ["secondary-capture"], ["secondary-capture"],
    ),
    "a colour image": (
        lambda: film(PhotometricInterpretation="RGB", SamplesPerPixel=3), None, "image.colour",
        "image.colour",
    ),
    "a colour capture with its own modality": (
        lambda: DICOM_FILES / "SC_rgb_rle.dcm", None, "image.modality", "image.modality",
    ),
    "a structured report": (
        lambda: DICOM_FILES / "reportsi.dcm", None, "dicom.no-pixels", "dicom.no-pixels",
    ),
    "a report as PDF": (
        lambda: ATTACKS / "pdf-encapsulated.dcm", None, "dicom.no-pixels", "dicom.no-pixels",
    ),
    "a PDF file": (lambda: ATTACKS / "report.pdf", "CR", "image.format", "image.format"),
    "a text file": (lambda: ATTACKS / "report.txt", "CR", "image.format", "image.format"),
    "a page as JPEG, nothing declared": (
        page, None, "image.modality-undeclared", "image.modality-undeclared",
    ),
    "a page as JPEG, declared a mammogram": (page, "MG", "image.modality", "image.modality"),
    # What neither tags nor pixels can tell; the caller or the header vouches for it, falsely.
    "a dog whose species nobody wrote down": (lambda: film(PatientSpeciesDescription=None), None, [], []),
    "a page as JPEG, declared a film": (page, "CR", [], []),
}  # fmt: skip


@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
@pytest.mark.parametrize("name", VISITORS)
def test_a_visitor(name: str, strict: bool) -> None:
    source, declared, *outcomes = VISITORS[name]
    expected = outcomes[strict]
    if isinstance(expected, list):
        picture = open_picture(source(), CHEST, Greyscale(), modality=declared, strict=strict)
        assert [notice.code for notice in picture.notices] == expected
        return
    with pytest.raises(ImageError) as refusal:
        open_picture(source(), CHEST, Greyscale(), modality=declared, strict=strict)
    assert refusal.value.code == expected


def test_real_mammograms(data_dir: Path | None) -> None:
    """Declared as what they are, a chest model refuses them; declared falsely, nothing tells."""
    if data_dir is None:
        return  # their licence keeps them out of this repository; the tags are tested above
    mammograms = sorted((data_dir / "mammo").rglob("*.png"))[:20]
    assert mammograms
    for path in mammograms:
        for declared, code in ((None, "image.modality-undeclared"), ("MG", "image.modality")):
            with pytest.raises(ImageError) as refusal:
                open_picture(path, CHEST, Greyscale(), modality=declared)
            assert refusal.value.code == code
        assert open_picture(path, CHEST, Greyscale(), modality="CR").source.modality_declared
