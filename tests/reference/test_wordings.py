"""The wordings: enough of each, none lost in cleaning, none both trained and held out."""

from __future__ import annotations

import pytest

from promptray.runtime.text import clean_carzero
from reference.wordings import CLASSES, MEANINGS, Meaning


@pytest.mark.parametrize("meaning", MEANINGS.values(), ids=MEANINGS)
def test_there_are_enough_and_cleaning_keeps_them_apart(meaning: Meaning) -> None:
    assert len(meaning.training) >= 8
    assert len(meaning.held_out) >= 5
    assert set(meaning.true_of) < set(CLASSES)
    assert all(len(clean_carzero(text).split()) > 1 for text in meaning.training + meaning.held_out)


def test_no_wording_is_used_twice() -> None:
    cleaned = [clean_carzero(t) for meaning in MEANINGS.values() for t in meaning.training + meaning.held_out]
    assert len(set(cleaned)) == len(cleaned)


def test_a_negation_is_true_of_the_other_classes() -> None:
    for plain, negated in (
        ("pneumonia", "no pneumonia"),
        ("bacterial pneumonia", "no bacterial pneumonia"),
        ("viral pneumonia", "no viral pneumonia"),
        ("normal", "not normal"),
    ):
        truths = set(MEANINGS[plain].true_of), set(MEANINGS[negated].true_of)
        assert truths[0].isdisjoint(truths[1])
        assert truths[0] | truths[1] == set(CLASSES)
