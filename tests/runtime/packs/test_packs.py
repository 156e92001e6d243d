"""The shipped prompt packs: what was published, as it was published."""

from __future__ import annotations

from collections import defaultdict

import msgspec
import pytest
from pydicom.sr._concepts_dict import concepts

from promptray.runtime.bundle.words import key_fault
from promptray.runtime.errors import PromptError
from promptray.runtime.packs import Pack, pack_names, read_pack
from promptray.runtime.text import clean_carzero

COUNTS = {
    "birads-density": 4,
    "chestxdet10": 10,
    "chestxray14": 14,
    "chexpert5": 5,
    "kad-chestxray14": 14,
    "openi18": 18,
    "padchest192": 192,
    "padchest20": 20,
    "rsna-pneumonia": 2,
}
CARZERO = ["chestxdet10", "chestxray14", "chexpert5", "openi18", "padchest192", "padchest20"]


def test_every_pack_is_there() -> None:
    assert {name: len(read_pack(name).findings) for name in pack_names()} == COUNTS


@pytest.mark.parametrize("name", COUNTS)
def test_keys_are_usable_and_differ(name: str) -> None:
    keys = [finding.key for finding in read_pack(name).findings]
    assert len(set(keys)) == len(keys)
    assert [key_fault(key) for key in keys if key_fault(key)] == []


@pytest.mark.parametrize("name", CARZERO)
def test_a_wording_of_carzero_is_a_sentence_that_its_cleaning_keeps_apart(name: str) -> None:
    prompts = [prompt for finding in read_pack(name).findings for prompt in finding.prompts]
    assert all(prompt.startswith("There is ") for prompt in prompts)
    cleaned = [clean_carzero(prompt) for prompt in prompts]
    assert [prompt for prompt, left in zip(prompts, cleaned, strict=True) if len(left.split()) < 3] == []
    assert len(set(cleaned)) == len(cleaned) == COUNTS[name]


def test_orders_are_those_of_the_published_score_columns() -> None:
    assert [finding.prompts[0] for finding in read_pack("chestxray14").findings] == [
        f"There is {words}"
        for words in (
            "Atelectasis", "Cardiomegaly", "Pleural Effusion", "Pulmonary Infiltration", "Pulmonary Mass",
            "Lung Nodule", "Pneumonia", "Pneumothorax", "Pulmonary Consolidation", "Pulmonary Edema",
            "Pulmonary Emphysema", "Fibrosis", "Pleural Thickening", "Hernia",
        )
    ]  # fmt: skip
    padchest = [finding.label for finding in read_pack("padchest192").findings]
    assert padchest[:5] == ["COPD signs", "Chilaiditi sign", "NSG tube", "abnormal foreign body", "abscess"]
    assert (padchest[33], padchest[58], padchest[-1]) == ("bullas", "dai", "volume loss")
    assert None not in padchest


def test_kads_terms_are_those_of_its_test_of_the_same_findings() -> None:
    terms, sentences = read_pack("kad-chestxray14").findings, read_pack("chestxray14").findings
    assert [each.prompts for each in terms] == [
        [term]
        for term in (
            "atelectasis", "cardiomegaly", "pleural effusion", "infiltration", "lung mass", "lung nodule",
            "pneumonia", "pneumothorax", "consolidation", "edema", "emphysema", "fibrosis", "pleural thicken",
            "hernia",
        )
    ]  # fmt: skip
    assert [(each.key, each.label, each.code) for each in terms] == [
        (each.key, each.label, each.code) for each in sentences
    ]


def test_the_subset_is_a_part_in_the_order_of_the_whole() -> None:
    whole, part = read_pack("padchest192"), read_pack("padchest20")
    assert [each for each in whole.findings if each in part.findings] == part.findings
    assert {"abscess", "dextrocardia", "empyema", "surgery humeral"} <= {each.key for each in part.findings}
    assert "cardiomegaly" not in {each.key for each in part.findings}


def test_density_is_ordered_and_pneumonia_is_asked_in_two_ways() -> None:
    density = read_pack("birads-density")
    assert [(each.label, each.prompts) for each in density.findings] == [
        ("A", ["The breast is Fatty predominance"]),
        ("B", ["The breast is Characterized by scattered areas of pattern density"]),
        ("C", ["The breast is Heterogeneously dense"]),
        ("D", ["The breast is Extremely dense"]),
    ]
    rsna = read_pack("rsna-pneumonia")
    assert [each.prompts for each in rsna.findings] == [
        ["a photo of normal lung", "normal lung presented in image"],
        ["a photo of pneumonia", "pneumonia presented in image"],
    ]
    assert (density.relation, rsna.relation) == ("ordinal", "exclusive")


def test_codes_are_those_of_dicoms_dictionary_where_it_has_them() -> None:
    meanings: dict[str, set[str]] = defaultdict(set)
    for codes in concepts["SCT"].values():
        for value, facts in codes.items():
            meanings[value].add(facts[0])
    packs = [read_pack(name) for name in pack_names()]
    codes = {each.code for pack in packs for each in pack.findings if each.code}
    in_dicom = [code for code in codes if code.scheme == "SCT" and code.value in meanings]
    assert len(in_dicom) > 20
    wrong = [c for c in in_dicom if not any(m.startswith(c.meaning) for m in meanings[c.value])]
    assert wrong == []
    assert {code.scheme for code in codes} == {"SCT", "RADLEX"}
    assert len({(code.scheme, code.value) for code in codes}) == len(codes), "one code, two meanings"


def test_a_key_has_one_code_in_all_packs() -> None:
    found: dict[str, set[object]] = defaultdict(set)
    for name in pack_names():
        for finding in read_pack(name).findings:
            found[finding.key].add(finding.code)
    assert {key: codes for key, codes in found.items() if len(codes) > 1} == {}


def test_an_unknown_pack_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PromptError, match="chestxray14") as caught:
        read_pack("chestxray15")
    assert caught.value.code == "prompt.unknown-pack"


def test_the_schema_refuses_an_unknown_field() -> None:
    content = msgspec.to_builtins(read_pack("chexpert5"))
    assert msgspec.convert(content, Pack) == read_pack("chexpert5")
    content["findings"][0]["prompt"] = "There is more"
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert(content, Pack)
