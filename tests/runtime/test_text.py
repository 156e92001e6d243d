"""Text cleaning, token limits, special tokens and word rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from promptray.export.tokenizer import read_bert_folder
from promptray.runtime.bundle.manifest import TextRule
from promptray.runtime.errors import BundleError, PromptError
from promptray.runtime.text import TextEncoder, clean_asg, clean_carzero, require_text

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


LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECES = [("</s>", 0.0), ("<unk>", 0.0), ("▁", -8.0), ("▁is", -3.0), ("▁pneumonia", -3.0)]


def sentence_piece(*, around: str = "$A </s>", clean: normalizers.Normalizer | None = None) -> bytes:
    """Return a Unigram tokenizer as SigLIP's: one special token, at the end, unless told otherwise."""
    tokenizer = Tokenizer(models.Unigram([*PIECES, *((each, -9.0) for each in LETTERS)], unk_id=1))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    if clean is not None:
        tokenizer.normalizer = clean
    if around:
        tokenizer.post_processor = processors.TemplateProcessing(single=around, special_tokens=[("</s>", 0)])
    return tokenizer.to_str().encode()


def plain(context: int = 16) -> TextRule:
    return TextRule(
        head="prompts",
        cleaning="white-space",
        tokenizer="tokenizer.json",
        context=context,
        templates=["{}"],
    )


@pytest.mark.parametrize(
    ("around", "before", "after"), [("$A </s>", 0, 1), ("</s> $A", 1, 0), ("</s> $A </s> </s>", 1, 2)]
)
def test_special_tokens_are_those_that_the_tokenizer_adds(around: str, before: int, after: int) -> None:
    encoder = TextEncoder(plain(), sentence_piece(around=around))
    for text, words, ids in (
        ("pneumonia", 1, [4]),
        ("is pneumonia is", 3, [3, 4, 3]),
        ("is abc", 2, [3, 2, 5, 6, 7]),
        ("", 0, []),
        ("pneumonia </s>", 2, [4, 2, 1, 1, 1, 23, 1]),
    ):
        encoded = encoder.encode(text)
        assert encoded.wording.words == words, text
        assert not encoded.wording.truncated
        if "</s>" not in text:
            assert encoded.arrays["input_ids"].tolist() == [[0] * before + ids + [0] * after]
        assert encoded.arrays["word_matrix"].shape[1] == words + before + after
    cut = encoder.encode("is " * 40)
    assert cut.wording.truncated
    assert cut.wording.words == 16 - before - after
    assert cut.arrays["input_ids"].tolist() == [[0] * before + [3] * (16 - before - after) + [0] * after]


@pytest.mark.parametrize("prefix", [False, True])
def test_a_word_of_a_byte_level_bpe_begins_with_the_space_before_it(prefix: bool) -> None:
    """As RoBERTa's and GPT-2's do; a sign goes on with its word, and a letter may be two pieces."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<s>", "</s>", *alphabet, "\u0120i", "\u0120is"]
    merges = [("\u0120", "i"), ("\u0120i", "s")]
    tokenizer = Tokenizer(models.BPE({piece: n for n, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    encoded = TextEncoder(plain(context=64), tokenizer.to_str().encode()).encode("edema is \u00f8 mild.")
    assert encoded.wording.words == 4
    rows = encoded.arrays["word_matrix"][0].sum(axis=1).tolist()
    assert rows == [1, 5 + prefix, 1, 3, 6, 1]


def test_a_word_of_sentence_piece_begins_with_its_mark() -> None:
    encoded = TextEncoder(plain(context=64), sentence_piece()).encode("cardiomegaly is mild")
    assert encoded.wording.words == 3
    matrix = encoded.arrays["word_matrix"][0]
    assert matrix.sum(axis=1).tolist() == [13, 1, 5, 1]
    assert (matrix.sum(axis=0) == 1).all()


def test_a_piece_is_a_word_where_nothing_says_otherwise() -> None:
    tokenizer = Tokenizer(models.WordLevel({"</s>": 0, "mild": 1, "edema": 2, "?": 3}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    encoded = TextEncoder(plain(), tokenizer.to_str().encode()).encode("mild edema ##now")
    assert encoded.arrays["input_ids"].tolist() == [[1, 2, 3, 0]]
    assert encoded.wording.words == 3


@pytest.mark.parametrize(
    ("tokenizer", "context", "said"),
    [
        (sentence_piece(around=""), 16, "1 to 15 special tokens that its post_processor adds"),
        (sentence_piece(around="</s> $A </s>"), 2, "1 to 1 special tokens"),
        (sentence_piece(clean=normalizers.Replace(Regex(r"\s+"), " ")), 16, "regular expressions"),
    ],
)
def test_a_tokenizer_that_does_not_fit_the_rule_is_refused(tokenizer: bytes, context: int, said: str) -> None:
    with pytest.raises(BundleError) as refusal:
        TextEncoder(plain(context), tokenizer)
    assert refusal.value.code == "bundle.format"
    assert said in str(refusal.value)
    assert "tokenizer" in str(refusal.value.cure)


def test_a_special_token_inside_a_text_is_refused() -> None:
    """Nobody could say what a cut should keep."""
    encoder = TextEncoder(plain(), sentence_piece(around="$A </s> $A"))
    with pytest.raises(BundleError, match="puts special tokens into a text"):
        encoder.encode("pneumonia")


@pytest.mark.parametrize("text", ["", " \n", "\u200d"])
@pytest.mark.parametrize(("around", "cleaning"), [("$A </s>", "white-space"), ("</s> $A </s>", "asg-report")])
def test_a_prompt_without_a_word_is_empty_whatever_the_tokenizer(
    text: str, around: str, cleaning: Any
) -> None:
    rule = msgspec.structs.replace(plain(), cleaning=cleaning)
    strip = normalizers.Replace("\u200d", "")
    encoder = TextEncoder(rule, sentence_piece(around=around, clean=strip))
    require_text("edema", encoder.encode_finding(["is edema"], ["is"]))
    for finding in (encoder.encode_finding([text]), encoder.encode_finding(["is"], ["is", text])):
        with pytest.raises(PromptError) as refusal:
            require_text("edema", finding)
        assert refusal.value.code == "prompt.empty"
        assert f"cleaning ({cleaning})" in str(refusal.value)
        assert "one word" not in str(refusal.value)


def test_what_carzeros_rule_drops_is_said(encoder: TextEncoder) -> None:
    with pytest.raises(PromptError, match=r"carzero-sentences, which drops sentences of one word"):
        require_text("edema", encoder.encode_finding(["Edema"]))
