"""Views by the tags of DICOM objects: of real files, and every way to contradict oneself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as published

from promptray.runtime.dicom.read import read_dataset
from promptray.runtime.dicom.view import _MODIFIERS, OTHER, ViewFacts, view_facts
from promptray.runtime.views import VIEW_CODES
from tests import dicom_factory as factory
from tests.examinations import code

# pydicom warns of what these tests write on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
COMMITTED = Path(__file__).parents[2] / "data" / "dicom" / "files"
CC, MLO = VIEW_CODES["CC"], VIEW_CODES["MLO"]


def facts(**tags: Any) -> ViewFacts:
    """Facts of a file written and read again."""
    return view_facts(read_dataset(factory.file(**tags)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Fake_MONOHR1.dcm", ("PA", None)),
        ("6154.dcm", ("LL", None)),
        ("dx_image.dcm", (None, "L")),
        ("CT_small.dcm", (None, None)),
    ],
)
def test_committed_files(name: str, expected: tuple[str | None, str | None]) -> None:
    found = view_facts(read_dataset((COMMITTED / name).read_bytes()))
    assert (found.view, found.laterality, found.modifiers) == (*expected, ())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("OutOfBoundsOverlay.dcm", ("CC", "L")),  # position, code of SNM3 and side
        ("MG1_J2KI.dcm", ("MLO", "L")),  # Laterality of the series
        ("RG1_J2KI.dcm", ("PA", None)),
    ],
)
def test_real_mammograms(name: str, expected: tuple[str | None, str | None], data_dir: Path | None) -> None:
    if data_dir is None:
        pytest.skip("needs --data")
    found = view_facts(read_dataset((data_dir / "dicom" / "files" / name).read_bytes()))
    assert (found.view, found.laterality, found.modifiers) == (*expected, ())


@pytest.mark.parametrize(("term", "known"), [item for item in VIEW_CODES.items() if item[1]])
def test_every_code_of_a_view_is_read(term: str, known: tuple[str, ...]) -> None:
    found = {
        scheme: facts(ViewCodeSequence=[code(value, scheme)]).view
        for value, scheme in zip(known, ("SCT", "SRT", "SNM3"), strict=False)
    }
    assert set(found.values()) == {term}


def test_codes_are_those_that_the_standard_publishes() -> None:
    """pydicom carries the standard's context groups; the specimen of CID 4014 is no view."""
    of_breast = {VIEW_CODES[term][0] for term in list(VIEW_CODES)[:10]}
    assert context_group("cid4014").keys() - {"127457009"} == of_breast
    of_chest = {VIEW_CODES[term][0] for term in ("AP", "PA", "LL", "RL")}
    assert of_chest <= context_group("cid4010").keys()
    present = {value: word for value, word in _MODIFIERS.items() if value.isdigit()}
    assert context_group("cid4015") == present


def context_group(name: str) -> dict[str, str]:
    """Codes of SNOMED CT with their meanings."""
    group = getattr(published, name)
    concepts = [getattr(group, each) for each in dir(group) if each[0].isupper()]
    return {concept.value: concept.meaning.lower() for concept in concepts}


@pytest.mark.parametrize(
    ("tags", "view", "laterality"),
    [
        ({"ViewPosition": "MLO", "ImageLaterality": "R"}, "MLO", "R"),
        ({"ViewPosition": "mlo "}, "MLO", None),
        ({"ViewPosition": "MLO", "ViewCodeSequence": [code(MLO[1], "SRT")]}, "MLO", None),
        ({"ViewPosition": "CC", "ViewCodeSequence": [code(MLO[0])]}, "CC/MLO", None),
        ({"ViewCodeSequence": [code(MLO[0]), code(CC[0])]}, "CC/MLO", None),
        ({"ImageLaterality": "L", "Laterality": "R"}, None, "L/R"),
        ({"Laterality": "B"}, None, "B"),
        ({"ViewPosition": "LCC"}, None, None),
        ({"ViewCodeSequence": [code("CC", "99LOCAL")]}, None, None),
        ({"ViewCodeSequence": [code(CC[0], "99LOCAL")]}, None, None),
        ({"ViewPosition": "CC", "ViewCodeSequence": [code("1", "99LOCAL")]}, "CC", None),
        ({"ViewPosition": ["CC", "MLO"], "ImageLaterality": ["L", "R"]}, None, None),
        ({"ImageLaterality": "X"}, None, None),
    ],
)
def test_terms(tags: dict[str, Any], view: str | None, laterality: str | None) -> None:
    found = facts(**tags)
    assert (found.view, found.laterality) == (view, laterality)


def modified(*modifiers: Dataset) -> Dataset:
    return code(CC[0], ViewModifierCodeSequence=list(modifiers))


@pytest.mark.parametrize(
    ("tags", "modifiers"),
    [
        ({"ViewCodeSequence": [modified()]}, ()),
        ({"ViewCodeSequence": [modified(code("399209000"))]}, ("implant displaced",)),
        (
            {"ViewCodeSequence": [modified(code("R-102D7", "SRT"), code("R-102D6", "SRT"))]},
            ("magnification", "spot compression"),
        ),
        ({"ViewModifierCodeSequence": [code("399209000")]}, ("implant displaced",)),
        ({"ViewModifierCodeSequence": [code("1", "99LOCAL")]}, (OTHER,)),
        ({"PartialView": "YES"}, ("partial",)),
        ({"PartialView": "NO"}, ()),
    ],
)
def test_modifiers(tags: dict[str, Any], modifiers: tuple[str, ...]) -> None:
    assert facts(**tags).modifiers == modifiers


def test_a_view_sequence_that_cannot_be_read_is_no_plain_view() -> None:
    made = factory.dataset(ViewPosition="CC")
    made.add(DataElement("ViewCodeSequence", "LO", "no sequence"))
    assert view_facts(read_dataset(factory.encode(made))) == ViewFacts("CC", None, (OTHER,))


def test_free_text_in_a_tag_of_views_goes_nowhere() -> None:
    name = factory.NAME
    item = code(name, name, ViewModifierCodeSequence=[code(name, name)])
    found = facts(ViewPosition=name, ImageLaterality=name, PartialView=name, ViewCodeSequence=[item])
    assert "PLANTED" not in repr(found)
    assert found == ViewFacts(None, None, (OTHER,))


def test_a_data_set_in_memory_is_read_alike() -> None:
    made: Dataset = factory.dataset(ViewPosition="CC", ImageLaterality="L")
    assert view_facts(made) == ViewFacts("CC", "L", ())
