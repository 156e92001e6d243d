"""Free wordings in the form of prompts."""

from __future__ import annotations

import pytest

from promptray.calibrate.reports.align import align, in_form
from promptray.runtime.packs import read_pack

ALIGNED = {
    "mild cardiomegaly without effusion": ["There is cardiomegaly", "There is no pleural effusion"],
    "Patchy opacity in the right lower lobe": ["There is lung opacity in the right lower lung"],
    "possible pneumonia": ["There is pneumonia"],
    "There is Pleural Effusion": ["There is Pleural Effusion"],
    "There is no edema in the left lung.": ["There is no edema in the left lung."],
    "a  lung hepatization.": ["There is lung hepatization"],
}


@pytest.mark.parametrize("wording", ALIGNED)
def test_a_wording_is_brought_to_the_form(wording: str) -> None:
    sentences = [each.sentence for each in align(wording)]
    assert sentences == ALIGNED[wording]
    assert all(in_form(sentence) for sentence in sentences)


def test_how_a_proposal_was_made_is_said() -> None:
    made = {wording: align(wording)[0] for wording in ALIGNED}
    assert made["possible pneumonia"].existence == "uncertain"
    assert [each.by for each in made.values()] == [
        "triplet", "triplet", "triplet", "already", "already", "as written"
    ]  # fmt: skip


@pytest.mark.parametrize("wording", ["", "  ", "?", "unknown words " * 10, "There is no no such thing: 5 %"])
def test_what_cannot_be_aligned_is_refused(wording: str) -> None:
    with pytest.raises(ValueError, match="neither a finding"):
        align(wording)


@pytest.mark.parametrize(
    "sentence",
    ["There is", "There is no", "Edema", "There are nodules", "There is edema. There is mass",
     "there is edema", "There is edema\nThere is mass", "There is <b>edema", "There is œdema",
     "There is " + "very " * 30 + "edema"],
)  # fmt: skip
def test_what_is_not_the_form(sentence: str) -> None:
    assert not in_form(sentence)


@pytest.mark.parametrize("name", ["chestxray14", "openi18", "chexpert5", "chestxdet10"])
def test_the_published_prompts_have_the_form(name: str) -> None:
    prompts = [prompt for finding in read_pack(name).findings for prompt in finding.prompts]
    assert [prompt for prompt in prompts if not in_form(prompt)] == []
