"""Settings beside a vocabulary: passed on, known to change no id, or refused by name."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from promptray.export.tokenizer import bert_files, read_bert_folder
from promptray.export.torchvision_guard import ensure_torchvision_imports
from promptray.runtime.errors import BuildError
from tests.open_clip_tiny import FOLDER

CONTEXT = 32
NAMES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json")
COMBINATIONS = [
    {"do_lower_case": lowercase, "strip_accents": accents, "tokenize_chinese_chars": chinese}
    for lowercase, accents, chinese in itertools.product((True, False), (None, True, False), (True, False))
]


def folder_with(folder: Path, **files: Any) -> Path:
    """Write a text model's folder; `files` are contents of `NAMES` without their ending."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(FOLDER / "bert" / "config.json", folder / "config.json")
    # Pieces that only some settings can reach.
    pieces = (FOLDER / "vocab.txt").read_text(encoding="utf-8").splitlines()[:-5]
    more = ["É", "é", "Pleural", "漢", "漢字"]
    (folder / "vocab.txt").write_text("\n".join([*pieces, *more]) + "\n", encoding="utf-8")
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def read(folder: Path) -> Tokenizer:
    return Tokenizer.from_str(read_bert_folder(folder).tokenizer_json(context=CONTEXT).decode())


def published(folder: Path) -> Any:
    """Return what open_clip and CARZero take: transformers' choice for the folder."""
    ensure_torchvision_imports()
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Tokenizer, Any]]:
    """Our tokenizer and the original's for every combination."""
    root = tmp_path_factory.mktemp("settings")
    folders = [
        folder_with(root / str(number), tokenizer_config=each) for number, each in enumerate(COMBINATIONS)
    ]
    return [(read(folder), published(folder)) for folder in folders]


def texts() -> st.SearchStrategy[str]:
    words = st.sampled_from(
        "É é E\u0301 Pleural pleural PLEURAL 漢字 漢 [PAD] [SEP] [mask] İ ǅ naïve - \u200b".split(" ")
    )
    free = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    return st.lists(st.one_of(words, free), max_size=12).map(" ".join)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts())
def test_every_combination_gives_the_originals_ids(both: list[tuple[Tokenizer, Any]], text: str) -> None:
    for combination, (ours, original) in zip(COMBINATIONS, both, strict=True):
        expected = original(text, truncation=True, max_length=CONTEXT)["input_ids"]
        assert ours.encode(text).ids == expected, combination


def test_the_settings_make_a_difference(both: list[tuple[Tokenizer, Any]]) -> None:
    """None of the settings could be ignored and the test above still pass."""
    found = [tuple(ours.encode("É Pleural 漢字").ids) for ours, _ in both]
    assert len(set(found)) == 8, "no accents setting means: as the case"


PUBLISHED = {
    "do_basic_tokenize": True, "do_lower_case": True, "never_split": None, "strip_accents": None,
    "tokenize_chinese_chars": True, "tokenizer_class": "BertTokenizer", "clean_up_tokenization_spaces": True,
    "model_max_length": 1000000000000000019884624838656, "name_or_path": "a/b",
    "special_tokens_map_file": None, "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]",
    "unk_token": "[UNK]", "mask_token": "[MASK]",
}  # fmt: skip
SPELT = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
LISTED = {
    str(number): {"content": piece, "special": True, **SPELT}
    for number, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
}
SAME: dict[str, dict[str, Any]] = {
    "nothing beside it": {},
    "as hubs have it": {"tokenizer_config": PUBLISHED},
    "the fast class": {"tokenizer_config": {"tokenizer_class": "BertTokenizerFast"}},
    "tokens with their flags": {
        "tokenizer_config": {"added_tokens_decoder": LISTED, "cls_token": {"content": "[CLS]", **SPELT}}
    },
    "nothing in addition": {
        "tokenizer_config": {"additional_special_tokens": [], "extra_special_tokens": {}},
        "special_tokens_map": {"cls_token": "[CLS]", "mask_token": {"content": "[MASK]", **SPELT}},
        "added_tokens": {"[MASK]": 4},
    },
}


@pytest.mark.parametrize("case", SAME)
def test_what_changes_no_id_is_accepted(tmp_path: Path, case: str) -> None:
    plain = read_bert_folder(folder_with(tmp_path / "plain")).tokenizer_json(context=CONTEXT)
    assert (
        read_bert_folder(folder_with(tmp_path / "new", **SAME[case])).tokenizer_json(context=CONTEXT) == plain
    )


def test_what_transformers_saves_is_accepted(tmp_path: Path) -> None:
    for number, settings_ in enumerate(COMBINATIONS):
        folder = folder_with(tmp_path / str(number), tokenizer_config=settings_)
        alone = read_bert_folder(folder).tokenizer_json(context=CONTEXT)
        published(folder).save_pretrained(folder)
        assert (folder / "tokenizer.json").is_file()
        assert read_bert_folder(folder).tokenizer_json(context=CONTEXT) == alone


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "an unknown key": ("tokenizer_config", {"do_stem": True}, "'do_stem' is not known"),
    "an unknown special token": ("special_tokens_map", {"eos_token": "[SEP]"}, "'eos_token' is not known"),
    "code of its own": ("tokenizer_config", {"auto_map": {}}, "'auto_map' is not known"),
    "no basic tokenising": ("tokenizer_config", {"do_basic_tokenize": False}, "another do_basic_tokenize"),
    "pieces that are not split": ("tokenizer_config", {"never_split": ["x-ray"]}, "another never_split"),
    "another prefix": ("tokenizer_config", {"wordpieces_prefix": "@@"}, "another wordpieces_prefix"),
    "another class": ("tokenizer_config", {"tokenizer_class": "RobertaTokenizer"}, "another tokenizer_class"),
    "padding first": ("tokenizer_config", {"padding_side": "left"}, "another padding_side"),
    "cut at the front": ("tokenizer_config", {"truncation_side": "left"}, "another truncation_side"),
    "more special tokens": ("tokenizer_config", {"additional_special_tokens": ["[X]"]}, "another additional"),
    "another name": ("tokenizer_config", {"unk_token": "<unk>"}, "another unk_token"),
    "another name in the map": ("special_tokens_map", {"cls_token": "[SEP]"}, "another cls_token"),
    "no mask": ("tokenizer_config", {"mask_token": None}, "another mask_token"),
    "a token found otherwise": (
        "special_tokens_map", {"cls_token": {"content": "[CLS]", "normalized": True}}, "another cls_token",
    ),
    "case as text": ("tokenizer_config", {"do_lower_case": "no"}, "do_lower_case cannot be used"),
    "case as a number": ("tokenizer_config", {"do_lower_case": 0}, "do_lower_case cannot be used"),
    "case unsaid": ("tokenizer_config", {"do_lower_case": None}, "do_lower_case cannot be used"),
    "accents as text": ("tokenizer_config", {"strip_accents": "false"}, "strip_accents cannot be used"),
    "chinese as null": ("tokenizer_config", {"tokenize_chinese_chars": None}, "chinese_chars cannot"),
    "a token added": ("added_tokens", {"[X]": 400}, "'[X]' with id '400'"),
    "a piece made special": ("added_tokens", {"pleural": 121}, "'pleural' with id '121'"),
    "a token moved": ("added_tokens", {"[MASK]": 400}, "'[MASK]' with id '400'"),
    "a token listed elsewhere": (
        "tokenizer_config", {"added_tokens_decoder": {"7": LISTED["0"]}}, "'[PAD]' with id '7'",
    ),
    "a token listed with space": (
        "tokenizer_config", {"added_tokens_decoder": {"0": {**LISTED["0"], "lstrip": True}}}, "another way",
    ),
    "a list that is none": ("tokenizer_config", {"added_tokens_decoder": []}, "decoder' is not known"),
    "half a character": ("tokenizer_config", {"\ud800": 1}, r"'\ud800' is not known"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_could_change_an_id_is_refused_by_name(tmp_path: Path, case: str) -> None:
    file, content, named = REFUSED[case]
    refusal = refused(folder_with(tmp_path, **{file: content}))
    assert refusal.artefact == f"{file}.json"
    assert named in str(refusal)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"1", b"[" * 100_000])
def test_a_broken_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    folder = folder_with(tmp_path)
    (folder / name).write_bytes(content)
    assert refused(folder).artefact == name


def edited(*path: str | int, value: Any) -> Any:
    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


CONTRADICTIONS: dict[str, tuple[Any, str]] = {
    "case": (edited("normalizer", "lowercase", value=False), "normalizer.lowercase"),
    "accents": (edited("normalizer", "strip_accents", value=False), "normalizer.strip_accents"),
    "ideographs": (
        edited("normalizer", "handle_chinese_chars", value=False), "normalizer.handle_chinese_chars",
    ),
    "controls": (edited("normalizer", "clean_text", value=False), "normalizer.clean_text"),
    "another normaliser": (edited("normalizer", value={"type": "NFD"}), "normalizer.type"),
    "no normaliser": (edited("normalizer", value=None), "normalizer.type"),
    "another split": (edited("pre_tokenizer", value={"type": "Whitespace"}), "pre_tokenizer.type"),
    "another prefix": (edited("model", "continuing_subword_prefix", value="@@"), "continuing_subword_prefix"),
    "longer words": (edited("model", "max_input_chars_per_word", value=7), "max_input_chars_per_word"),
    "a piece moved": (
        lambda c: c["model"]["vocab"].update(pleural=122, effusion=121), "the id of ",
    ),
    "a piece more": (edited("model", "vocab", "xyz", value=400), "the id of xyz"),
    "a piece less": (lambda c: c["model"]["vocab"].pop("pneumonia"), "the id of pneumonia"),
    "a token more": (
        lambda c: c["added_tokens"].append({**c["added_tokens"][0], "id": 121, "content": "pneumonia"}),
        "the added piece pneumonia",
    ),
    "a token found otherwise": (edited("added_tokens", 0, "lstrip", value=True), "the added piece [PAD]"),
    "nothing around": (edited("post_processor", value=None), "what is put around a text"),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_tokenizer_that_contradicts_the_other_files_is_refused(tmp_path: Path, case: str) -> None:
    change, named = CONTRADICTIONS[case]
    folder = folder_with(tmp_path)
    content = whole(folder)
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    refusal = refused(folder)
    assert refusal.artefact == "tokenizer.json"
    assert named in refusal.message
    assert "contradicts vocab.txt" in refusal.message


IDLE: dict[str, Any] = {
    "another length": edited("truncation", value=None),
    "padded": edited(
        "padding",
        value={
            "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[PAD]",
        },
    ),
    "accents said": edited("normalizer", "strip_accents", value=True),
    "another way to say what is around": edited(
        "post_processor", value={"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    ),
    "special tokens unsaid": edited("added_tokens", value=[]),
}  # fmt: skip


@pytest.mark.parametrize("case", IDLE)
def test_a_tokenizer_that_says_the_same_is_accepted(tmp_path: Path, case: str) -> None:
    folder = folder_with(tmp_path)
    content = whole(folder)
    alone = read_bert_folder(folder).tokenizer_json(context=CONTEXT)
    IDLE[case](content)
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert read_bert_folder(folder).tokenizer_json(context=CONTEXT) == alone


def test_every_file_that_is_read_is_named(tmp_path: Path) -> None:
    assert bert_files(tmp_path / "weights", None) == []
    named = bert_files(tmp_path / "weights", tmp_path)
    assert [path.name for path in named] == ["config.json", "vocab.txt", *NAMES]
    assert {path.parent for path in named} == {tmp_path}


def whole(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(read_bert_folder(folder).tokenizer_json(context=CONTEXT))
    return content


def refused(folder: Path) -> BuildError:
    with pytest.raises(BuildError) as refusal:
        read_bert_folder(folder)
    assert refusal.value.code == "text-model.invalid"
    assert refusal.value.cure
    return refusal.value
