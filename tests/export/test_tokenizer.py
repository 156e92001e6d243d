"""The exported tokenizer gives the ids of the original's; a folder that is another model's is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from promptray.export.tokenizer import BertFolder, read_bert_folder
from promptray.export.torchvision_guard import ensure_torchvision_imports
from promptray.runtime.errors import BuildError

CONTEXT = 97


@pytest.fixture(scope="module")
def folder(carzero_checkpoint: Path) -> BertFolder:
    return read_bert_folder(carzero_checkpoint / "text_model")


@pytest.fixture(scope="module")
def ours(folder: BertFolder) -> Tokenizer:
    return Tokenizer.from_str(folder.tokenizer_json(context=CONTEXT).decode())


@pytest.fixture(scope="module")
def original(carzero_checkpoint: Path) -> Any:
    ensure_torchvision_imports()
    from transformers import BertTokenizer

    return BertTokenizer(str(carzero_checkpoint / "text_model" / "vocab.txt"))


def pieces() -> st.SearchStrategy[str]:
    """ASCII text: arbitrary, and made of words that the vocabulary knows."""
    words = st.sampled_from(
        "There is no Pleural effusion. Right-Sided pneumothorax, 1. ATELECTASIS (mild) x2".split()
    )
    ascii_text = st.text(st.characters(max_codepoint=127), max_size=60)
    text = st.one_of(ascii_text, st.lists(st.one_of(words, ascii_text), max_size=150).map(" ".join))
    return text


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=pieces())
def test_ids_equal_those_of_the_original_tokenizer(ours: Tokenizer, original: Any, text: str) -> None:
    expected = original(text, truncation=True, max_length=CONTEXT)["input_ids"]
    assert ours.encode(text).ids == expected


def test_the_vocabulary_keeps_its_order(folder: BertFolder, ours: Tokenizer) -> None:
    assert len(folder.vocabulary) == ours.get_vocab_size() == 400
    assert all(ours.token_to_id(piece) == number for number, piece in enumerate(folder.vocabulary))


def test_the_same_folder_gives_the_same_bytes(carzero_checkpoint: Path, folder: BertFolder) -> None:
    again = read_bert_folder(carzero_checkpoint / "text_model")
    assert again.tokenizer_json(context=CONTEXT) == folder.tokenizer_json(context=CONTEXT)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_only_line_ends_end_a_piece(spoilable: Path, line_end: str) -> None:
    lines = [*(spoilable / "vocab.txt").read_text().splitlines(), "\u2028", "a\x85b", "last"]
    (spoilable / "vocab.txt").write_bytes(line_end.join([*lines, ""]).encode())
    assert read_bert_folder(spoilable).vocabulary == tuple(lines)


def configuration(**changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = json.loads((path / "config.json").read_text())
        content.update(changes)
        (path / "config.json").write_text(json.dumps(content))

    return change


def vocabulary(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        lines = (path / "vocab.txt").read_text().splitlines()
        (path / "vocab.txt").write_text("\n".join(change(lines)) + "\n")

    return edit


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda path: (path / "config.json").unlink(), "cannot be read"),
    "no vocabulary": (lambda path: (path / "vocab.txt").unlink(), "cannot be read"),
    "broken config": (lambda path: (path / "config.json").write_text("{"), "cannot be read"),
    "config that is a list": (lambda path: (path / "config.json").write_text("[]"), "attention heads"),
    "binary vocabulary": (lambda path: (path / "vocab.txt").write_bytes(b"\xff\xfe\x00"), "cannot be read"),
    "empty vocabulary": (vocabulary(lambda lines: []), "[PAD]"),
    "no [CLS]": (vocabulary(lambda lines: [line for line in lines if line != "[CLS]"]), "[CLS]"),
    "a piece twice": (vocabulary(lambda lines: [*lines[:-1], lines[-2]]), "repeats a piece"),
    "no heads": (configuration(num_attention_heads=None), "attention heads"),
    "heads of text": (configuration(num_attention_heads="4"), "attention heads"),
    "heads of truth": (configuration(num_attention_heads=True), "attention heads"),
    "another activation": (configuration(hidden_act="relu"), "hidden_act"),
    "relative positions": (configuration(position_embedding_type="relative_key"), "position_embedding_type"),
    "another epsilon": (configuration(layer_norm_eps=1e-5), "layer_norm_eps"),
}


@pytest.fixture
def spoilable(tmp_path: Path, carzero_checkpoint: Path) -> Path:
    return Path(shutil.copytree(carzero_checkpoint / "text_model", tmp_path / "text_model"))


@pytest.mark.parametrize("case", SPOILT)
def test_a_folder_that_is_not_whole_is_refused(spoilable: Path, case: str) -> None:
    change, named = SPOILT[case]
    change(spoilable)
    with pytest.raises(BuildError) as refusal:
        read_bert_folder(spoilable)
    assert refusal.value.code == "text-model.invalid"
    assert named in str(refusal.value)
    assert refusal.value.cure


def test_a_recipe_without_text_model_is_told_what_to_add() -> None:
    with pytest.raises(BuildError, match="add text_model to the recipe"):
        read_bert_folder(None)


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ({"width": 768}, "hidden_size"),
        ({"vocabulary": 30522}, "vocab.txt"),
        ({"layers": 12}, "num_hidden_layers"),
    ],
)
def test_the_text_model_of_another_checkpoint_is_refused(
    folder: BertFolder, wanted: dict[str, int], named: str
) -> None:
    fits = {"width": 64, "vocabulary": 400, "layers": 5}
    folder.require_fit(**fits)
    with pytest.raises(BuildError, match=named) as refusal:
        folder.require_fit(**{**fits, **wanted})
    assert refusal.value.code == "text-model.invalid"


def test_a_configuration_nested_without_end_is_refused(carzero_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(carzero_checkpoint / "text_model", tmp_path / "text_model")
    (tmp_path / "text_model" / "config.json").write_text("[" * 100_000)
    with pytest.raises(BuildError) as caught:
        read_bert_folder(tmp_path / "text_model")
    assert caught.value.code == "text-model.invalid"
