"""open_clip's cleaning: the encoding mended, HTML resolved twice, one space between words."""

from __future__ import annotations

import html
from pathlib import Path

import ftfy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptray.export.tokenizer import read_bert
from promptray.runtime.bundle.manifest import TextRule
from promptray.runtime.text import TextEncoder, clean_open_clip

TINY = Path(__file__).parents[1] / "data" / "biomedclip_tiny"

CLEANED = {
    "pleural effusion": "pleural effusion",
    "  Pleural\t\n effusion \r\n": "Pleural effusion",
    "no\u00a0break, thin\u2009space": "no break, thin space",
    "a form\x0cfeed and a line\u2028separator": "a form feed and a line separator",
    "“Kerley’s” B‑lines": '"Kerley\'s" B‑lines',
    "ﬁbrosis, ﬂuid": "fibrosis, fluid",
    "RÃ¶ntgen": "Röntgen",
    "e\u0301coute": "écoute",
    "ï¼¡": "A",
    "&lt;5 mm": "<5 mm",
    "&amp;lt;5 mm": "<5 mm",
    "&amp;amp;lt;5 mm": "<5 mm",  # ftfy resolves HTML once more,
    "<b>&amp;amp;lt;5 mm": "<b>&lt;5 mm",  # but not in what looks like HTML
    "heart &amp; lung": "heart & lung",
    "B&nbsp;lines": "B lines",
    "&#8805; 5 &micro;m": "≥ 5 µm",
    "<b>seen</b>": "<b>seen</b>",
    "\x1b[31mred\x1b[0m": "red",
    "ＦＵＬＬ": "FULL",
    "": "",
    " \t\u00a0\u3000\n": "",
    "&nbsp;": "",
    "&amp;nbsp;": "",
}


@pytest.mark.parametrize("text", CLEANED, ids=ascii)
def test_the_rule_by_example(text: str) -> None:
    assert clean_open_clip(text) == CLEANED[text]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | st.lists(st.sampled_from(list(CLEANED)), max_size=4).map(" ".join))
def test_the_rule_as_open_clip_writes_it(text: str) -> None:
    """basic_clean, then whitespace_clean of open_clip 3.3.0."""
    basic = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    assert clean_open_clip(text) == " ".join(basic.split()).strip()


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    folder = read_bert(TINY / "bert" / "config.json", TINY / "vocab.txt")
    rule = TextRule(
        head="findings", cleaning="open-clip", tokenizer="tokenizer.json", context=16, templates=["{}"]
    )
    return TextEncoder(rule, folder.tokenizer_json(context=16))


PAD, UNK, CLS, SEP, MASK = range(5)


def ids(encoder: TextEncoder, text: str) -> list[int]:
    found: list[int] = encoder.encode(text).arrays["input_ids"][0].tolist()
    return found


@pytest.mark.parametrize(
    ("piece", "token"), [("[PAD]", PAD), ("[UNK]", UNK), ("[CLS]", CLS), ("[SEP]", SEP), ("[MASK]", MASK)]
)
def test_a_special_piece_in_a_prompt_is_the_token(encoder: TextEncoder, piece: str, token: int) -> None:
    """As the original's tokenizer takes it; [PAD] is then not attended to."""
    pneumonia = ids(encoder, "pneumonia")[1]
    assert ids(encoder, f"pneumonia {piece} pneumonia") == [CLS, pneumonia, token, pneumonia, SEP]
    assert ids(encoder, f"pneumonia{piece}") == [CLS, pneumonia, token, SEP]
    assert token not in ids(encoder, f"pneumonia {piece.lower()}")[1:-1]


def test_a_long_prompt_is_cut_and_closed(encoder: TextEncoder) -> None:
    pneumonia = ids(encoder, "pneumonia")[1]
    assert ids(encoder, "pneumonia " * 14) == [CLS, *[pneumonia] * 14, SEP]
    assert not encoder.encode("pneumonia " * 14).wording.truncated
    cut = encoder.encode("pneumonia " * 15)
    assert cut.arrays["input_ids"][0].tolist() == [CLS, *[pneumonia] * 14, SEP]
    assert cut.wording.truncated
    assert cut.wording.words == 14


def test_nothing_is_left_of_white_space(encoder: TextEncoder) -> None:
    for text in (" ", "\u00a0\n", "&nbsp;"):
        assert encoder.encode(text).wording.cleaned == ""
        assert ids(encoder, text) == [CLS, SEP]
