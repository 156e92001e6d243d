"""CARZero's text cleaning, token limits and word rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptray.export.tokenizer import read_bert_folder
from promptray.runtime.bundle.manifest import TextRule
from promptray.runtime.errors import BundleError, PromptError
from promptray.runtime.text import TextEncoder, clean_asg, clean_carzero

TINY = Path(__file__).parents[1] / "data" / "carzero_tiny"
RULE = TextRule(
    head="findings",
    cleaning="carzero-sentences",
    tokenizer="tokenizer.json",
    context=97,
    templates=["There is {}"],
)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(RULE, read_bert_folder(TINY / "text_model").tokenizer_json(context=97))


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("There is Pneumonia.", "there is pneumonia"),
        ("Edema", ""),
        ("normal", ""),
        ("", ""),
        (" . .. ", ""),
        ("T12. fracture", ""),
        ("1. mild Cardiomegaly\n2. No focal consolidation", "mild cardiomegaly no focal consolidation"),
        ("There is no Right-Sided Pneumothorax", "there is no right sided pneumothorax"),
        ("There is Calcified Granuloma. Edema. No mass here", "there is calcified granuloma no mass here"),
        ("é effusion", "effusion"),
        ("é ö", ""),
        ("naïve lungs", "nave lungs"),
        ("snake_case word", "snake_case word"),
        ("two words\ufffd\ufffdhere now", "two words here now"),
        ("line\nbreak only", "line break only"),
        ("3.5 cm mass", "5 cm mass"),
    ],
)
def test_cleaning_follows_the_original(text: str, cleaned: str) -> None:
    assert clean_carzero(text) == cleaned


@given(st.text(max_size=200))
def test_cleaning_is_stable_and_ascii(text: str) -> None:
    cleaned = clean_carzero(text)
    assert cleaned.isascii()
    assert cleaned == cleaned.lower()
    assert "  " not in cleaned
    assert not cleaned.startswith(" ")
    assert not cleaned.endswith(" ")


#: What people can read as it is written; the rest is refused (tests/attacks).
READABLE = st.characters(exclude_categories=("Cc", "Cf", "Cs"), include_characters="\t\r\n\u200d")


@given(st.text(READABLE, max_size=400))
def test_any_text_encodes_within_the_context(text: str) -> None:
    encoder = TextEncoder(RULE, read_bert_folder(TINY / "text_model").tokenizer_json(context=97))
    encoded = encoder.encode(text)
    ids, matrix = encoded.arrays["input_ids"], encoded.arrays["word_matrix"]
    assert ids.shape[1] <= 97
    assert matrix.shape == (1, encoded.wording.words + 2, ids.shape[1])
    assert (matrix.sum(axis=1) == 1).all(), "every token is added to exactly one row"
    assert (np.diff(matrix[0].argmax(axis=0)) >= 0).all(), "rows follow the order of the tokens"


def test_pieces_of_a_word_share_its_row(encoder: TextEncoder) -> None:
    encoded = encoder.encode("there is cardiomegalyxyz")
    ids, matrix = encoded.arrays["input_ids"], encoded.arrays["word_matrix"]
    assert encoded.wording.words == 3
    assert matrix.shape[1] == 5
    assert matrix.sum() == ids.shape[1]


def test_a_long_prompt_is_cut_and_keeps_its_end(encoder: TextEncoder) -> None:
    encoded = encoder.encode("there is effusion " * 60)
    assert encoded.wording.truncated
    ids = encoded.arrays["input_ids"][0]
    assert len(ids) == 97
    assert ids[-1] == encoder.encode("").arrays["input_ids"][0, -1]


@pytest.mark.parametrize("prompt", [None, 7, b"bytes", "x" * 20_001])
def test_what_is_no_prompt_is_refused(encoder: TextEncoder, prompt: object) -> None:
    with pytest.raises(PromptError) as refusal:
        encoder.encode(prompt)  # type: ignore[arg-type]
    assert refusal.value.code == "prompt.invalid"


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[1, 2]"])
def test_a_broken_tokenizer_is_refused(content: bytes) -> None:
    with pytest.raises(BundleError) as refusal:
        TextEncoder(RULE, content)
    assert refusal.value.code == "bundle.format"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Mild edema.\n\n  No pleural effusion.\n", "mild edema. no pleural effusion."),
        ("HEART size\t is  normal", "heart size is normal"),
        (" \n ", ""),
        ("edema", "edema"),
    ],
)
def test_sentences_of_a_report_are_joined_in_lower_case(text: str, cleaned: str) -> None:
    assert clean_asg(text) == cleaned
    assert clean_asg(cleaned) == cleaned
