"""The committed vocabulary: what the script makes, small, and sensible about ordinary findings."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptray.export.tokenizer import read_bert_folder
from promptray.runtime.bundle.manifest import TextRule
from promptray.runtime.text import TextEncoder
from reference.vocab import LARGEST, build_vocabulary
from reference.wordings import MEANINGS

TEXT_MODEL = Path(__file__).parents[2] / "reference" / "text_model"


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    rule = TextRule(
        head="findings",
        cleaning="carzero-sentences",
        tokenizer="tokenizer.json",
        context=97,
        templates=["{}"],
    )
    return TextEncoder(rule, read_bert_folder(TEXT_MODEL).tokenizer_json(context=97))


def test_the_script_makes_the_committed_vocabulary() -> None:
    committed = (TEXT_MODEL / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert build_vocabulary() == committed
    assert len(committed) <= LARGEST == 4000


def tokens(encoder: TextEncoder, prompt: str) -> int:
    return encoder.encode(prompt).arrays["input_ids"].shape[1] - 2


def test_wordings_are_not_split(encoder: TextEncoder) -> None:
    for meaning in MEANINGS.values():
        for text in meaning.training + meaning.held_out:
            assert tokens(encoder, text) == encoder.encode(text).wording.words


@pytest.mark.parametrize(
    "finding", ["cardiomegaly", "pleural effusion", "rib fracture", "pneumothorax", "edema"]
)
def test_ordinary_findings_stay_whole(encoder: TextEncoder, finding: str) -> None:
    assert tokens(encoder, f"There is {finding}") == 2 + len(finding.split())


def test_any_word_can_be_spelled(encoder: TextEncoder) -> None:
    unknown = read_bert_folder(TEXT_MODEL).vocabulary.index("[UNK]")
    encoded = encoder.encode("There is xylophonitis of segment 4b")
    assert unknown not in encoded.arrays["input_ids"]
    assert encoded.wording.words == 6
