"""What sentences say. All sentences here are our own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptray.calibrate.reports import Triplet, extract, summarise
from promptray.calibrate.reports.clause import Existence
from promptray.calibrate.reports.lexicon import lexicon

#: A text and what it says of findings; what is not named here may be said, too.
SAID: dict[str, dict[str, Existence]] = {
    # negation before, over lists, and its end
    "No pneumothorax or pleural effusion.": {"pneumothorax": "absent", "pleural effusion": "absent"},
    "No evidence of focal consolidation, effusion, or edema.": {
        "consolidation": "absent",
        "pleural effusion": "absent",
        "pulmonary edema": "absent",
    },
    "Neither effusion nor pneumothorax is seen.": {"pleural effusion": "absent", "pneumothorax": "absent"},
    "Small left effusion without pneumothorax.": {"pleural effusion": "present", "pneumothorax": "absent"},
    "No consolidation, but there is mild atelectasis.": {"consolidation": "absent", "atelectasis": "present"},
    "Stable cardiomegaly, no pneumothorax, small left effusion.": {
        "cardiomegaly": "present",
        "pneumothorax": "absent",
        "pleural effusion": "present",
    },
    "Lungs are clear of consolidation.": {"consolidation": "absent"},
    # negation behind
    "The effusion has resolved.": {"pleural effusion": "absent"},
    "Previously seen right pneumothorax is no longer visualized.": {"pneumothorax": "absent"},
    "Pneumothorax is absent.": {"pneumothorax": "absent"},
    # what only looks like negation
    "No change in the small right pleural effusion.": {"pleural effusion": "present"},
    "No significant interval change in bilateral effusions.": {"pleural effusion": "present"},
    "Small pleural effusion not seen on the prior examination.": {"pleural effusion": "present"},
    # doubt
    "Pneumonia cannot be excluded.": {"pneumonia": "uncertain"},
    "Cannot exclude a small effusion.": {"pleural effusion": "uncertain"},
    "No effusion is seen, but a small one is not excluded. Possible edema.": {"pulmonary edema": "uncertain"},
    "Left base opacity, which may represent pneumonia; no effusion.": {
        "lung opacity": "present",
        "pneumonia": "uncertain",
        "pleural effusion": "absent",
    },
    "Pulmonary edema versus pneumonia.": {"pulmonary edema": "uncertain", "pneumonia": "uncertain"},
    "Atelectasis or early infiltrate.": {"atelectasis": "uncertain", "infiltration": "uncertain"},
    "Effusion?": {"pleural effusion": "uncertain"},
    "Rule out pneumonia.": {"pneumonia": "uncertain"},
    "Borderline cardiomegaly.": {"cardiomegaly": "uncertain"},
    # negation outweighs doubt said before it
    "There is no evidence to suggest pneumonia.": {"pneumonia": "absent"},
    "Cardiomegaly without effusion or edema.": {
        "cardiomegaly": "present",
        "pleural effusion": "absent",
        "pulmonary edema": "absent",
    },
    # said in two places
    "The heart is mildly enlarged.": {"cardiomegaly": "present"},
    "Enlargement of the cardiac silhouette.": {"cardiomegaly": "present"},
    "The heart is not enlarged.": {"cardiomegaly": "absent"},
    "Heart size and mediastinal contours are within normal limits.": {
        "cardiomegaly": "absent",
        "mediastinal enlargement": "absent",
    },
    "Heart size is normal and the aorta is tortuous.": {
        "cardiomegaly": "absent",
        "aortic elongation": "present",
    },
    "Degenerative changes are present in the thoracic spine.": {"vertebral degenerative changes": "present"},
    "Left costophrenic angle is blunted.": {"costophrenic angle blunting": "present"},
    "Lung volumes are low.": {"hypoexpansion": "present"},
    # words that share others
    "Pericardial effusion.": {"pericardial effusion": "present"},
    "Subcutaneous emphysema.": {"subcutaneous emphysema": "present"},
    "Hydropneumothorax.": {"pneumothorax": "present", "pleural effusion": "present"},
    "Old healed right rib fractures. No acute fracture.": {"fracture": "present"},
    # de-identified words mean nothing
    "XXXX opacities in the left XXXX. No XXXX effusion.": {
        "lung opacity": "present",
        "pleural effusion": "absent",
    },
}
NOT_SAID = {
    "Pericardial effusion.": "pleural effusion",
    "Subcutaneous emphysema.": "emphysema",
    "Massive effusion.": "pulmonary mass",
    "Not normal heart size.": "cardiomegaly",
    "The patient was discharged home.": "catheter",
}


@pytest.mark.parametrize("text", SAID)
def test_a_sentence_says(text: str) -> None:
    found = summarise(extract(text))
    assert {key: found.get(key) for key in SAID[text]} == SAID[text]


@pytest.mark.parametrize("text", NOT_SAID)
def test_a_sentence_does_not_say(text: str) -> None:
    assert NOT_SAID[text] not in summarise(extract(text))


TRIGGERS = ("negation_before", "negation_after", "uncertain_before", "uncertain_after", "alternative")
WORDS = sorted(
    {"the", "xxxx", ",", ".", ";", "in", "and"}
    | {phrase for finding in lexicon().findings.values() for phrase in finding.phrases}
    | {trigger for kind in TRIGGERS for trigger in getattr(lexicon().rules, kind)}
)
PLACES = {
    "Left basilar atelectasis.": ("atelectasis", ["left lung base"]),
    "Patchy opacity in the right apex and left lung base.": (
        "lung opacity",
        ["right lung apex", "left lung base"],
    ),
    "Calcified granuloma, right lower lobe.": ("calcified granuloma", ["right lower lung"]),
    "A nodule is seen in the peripheral aspect of the left upper lobe.": ("nodule", ["left upper lung"]),
    "Small bilateral pleural effusions.": ("pleural effusion", ["bilateral pleura"]),
    "Pneumothorax.": ("pneumothorax", ["pleura"]),
    "Opacity in the left base, consistent with pneumonia.": ("pneumonia", ["left lung base"]),
    "Left effusion, atelectasis in the right apex.": ("pleural effusion", ["left pleura"]),
    "Blunting of the left costophrenic angle.": ("costophrenic angle blunting", ["left costophrenic angle"]),
    "Degenerative changes of the thoracic spine.": ("vertebral degenerative changes", ["thoracic spine"]),
}


@pytest.mark.parametrize("text", PLACES)
def test_a_finding_is_where_the_sentence_says(text: str) -> None:
    finding, places = PLACES[text]
    assert [each.region for each in extract(text) if each.finding == finding] == places


def test_a_statement_comes_once_and_in_order() -> None:
    assert extract("No effusion. Cardiomegaly. No effusion.") == [
        Triplet("pleura", "pleural effusion", "absent", "effusion"),
        Triplet("heart", "cardiomegaly", "present", "cardiomegaly"),
    ]


def test_present_outweighs_uncertain_and_uncertain_absent() -> None:
    assert summarise(extract("No effusion. Possible effusion."))["pleural effusion"] == "uncertain"
    assert summarise(extract("Possible effusion. Effusion. No effusion."))["pleural effusion"] == "present"


def test_an_absent_kind_does_not_deny_the_general_finding() -> None:
    assert summarise(extract("No rib fracture. Clavicle fracture.")) == {
        "rib fracture": "absent",
        "clavicle fracture": "present",
        "fracture": "present",
    }
    assert "fracture" not in summarise(extract("No rib fracture."))


@pytest.mark.parametrize(
    "text", ["", "\n\n", "....", "?!;:,", "\x00\ud800", "١٢٣ é ∑", "no " * 5000, "(" * 5000]
)
def test_odd_text_says_nothing(text: str) -> None:
    assert extract(text) == []


@pytest.mark.parametrize(
    "piece", ["effusion or ", "[**", "\n ", "heart enlarged ", "left lung and ", "no ", "_", "1. "]
)
def test_text_that_runs_on_comes_to_an_end(piece: str) -> None:
    """A rule that looked at all pairs, or a pattern that may start anywhere, would not."""
    text = (piece * 200_000)[:200_000]
    assert {each.existence for each in extract(text)} <= {"present", "absent", "uncertain"}


@given(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join))
def test_any_words_say_what_the_lexicon_has(text: str) -> None:
    findings = lexicon().findings
    triplets = extract(text)
    assert all(each.finding in findings and each.term for each in triplets)
    assert set(summarise(triplets)) <= set(findings)
    assert extract(text) == triplets


def test_a_book_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 200000 characters"):
        extract("x" * 200_001)


def test_terms_are_the_lexicons_own_words() -> None:
    (triplet,) = extract("Cardiomegaly of Jane Doe, 12.3.1950.")
    assert triplet == Triplet("heart", "cardiomegaly", "present", "cardiomegaly")
