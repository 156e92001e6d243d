"""Sentences and base forms."""

from __future__ import annotations

import pytest

from promptray.calibrate.reports.words import base_form, sentences

CASES = {
    "No effusion. Clear lungs.": [["no", "effusion"], ["clear", "lung"]],
    "A 2.5 cm nodule.": [["a", "2.5", "cm", "nodule"]],
    "1. No edema.\n2. Scoliosis.": [["no", "edema"], ["scoliosis"]],
    "apex.There": [["apex"], ["there"]],
    "wrapped\nline": [["wrapped", "line"]],
    "one\n\ntwo\n- three\n* four": [["one"], ["two"], ["three"], ["four"]],
    "edema vs. pneumonia": [["edema", "vs", "pneumonia"]],
    "Air-space disease; left/right (old)": [
        ["air", "space", "disease", ";", "left", "/", "right", "(", "old", ")"]
    ],
    "XXXX-year ___ [**2010-1-2**] old x-XXXX": [["xxxx", "year", "xxxx", "xxxx", "old", "xxxx"]],
    "effusion?": [["effusion", "?"]],
}


@pytest.mark.parametrize("text", CASES)
def test_sentences(text: str) -> None:
    assert list(sentences(text, {})) == CASES[text]


@pytest.mark.parametrize(
    ("word", "base"),
    [("effusions", "effusion"), ("densities", "density"), ("masses", "mass"), ("mass", "mass"),
     ("thymus", "thymus"), ("scoliosis", "scoliosis"), ("gas", "gas"),
     ("vertebrae", "vertebra"), ("patches", "patch")],
)  # fmt: skip
def test_base_forms(word: str, base: str) -> None:
    assert base_form(word, {"vertebrae": "vertebra"}) == base
