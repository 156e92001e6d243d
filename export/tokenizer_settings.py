"""How a published BERT tokenizer reads text: the files that may lie beside ``vocab.txt``.

A setting that is not honoured gives other ids without a word, and no comparison of two graphs that share the
ids could see it. So a setting is either passed on, known to change no id, or refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from promptray.export.json_file import read_object
from promptray.runtime.errors import BuildError

CONFIG = "tokenizer_config.json"
SPECIAL_NAMES = "special_tokens_map.json"
ADDED = "added_tokens.json"
WHOLE = "tokenizer.json"

#: Pieces that are taken for the token itself where a text holds them; their names are BERT's.
SPECIAL: Mapping[str, str] = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
#: Settings that are passed on: what they may be, the default first.
_SETTINGS: Mapping[str, tuple[bool | None, ...]] = {
    "do_lower_case": (True, False),
    "strip_accents": (None, True, False),
    "tokenize_chinese_chars": (True, False),
}
#: Keys of which only these values are implemented.
_ONLY: Mapping[str, Sequence[object]] = {
    "tokenizer_class": ("BertTokenizer", "BertTokenizerFast", None),
    "clean_text": (True,),
    "do_basic_tokenize": (True,),
    "never_split": (None, []),
    "wordpieces_prefix": ("##",),
    "max_input_chars_per_word": (100,),
    "additional_special_tokens": (None, []),
    "extra_special_tokens": (None, [], {}),
    "model_specific_special_tokens": (None, [], {}),
    "padding_side": ("right",),
    "truncation_side": ("right",),
}
#: Keys that change no id: where files came from, how ids become text again, lengths that the family sets.
_IDLE = frozenset(
    {
        "backend",
        "clean_up_tokenization_spaces",
        "full_tokenizer_file",
        "is_local",
        "local_files_only",
        "max_len",
        "max_length",
        "model_input_names",
        "model_max_length",
        "name_or_path",
        "pad_to_multiple_of",
        "pad_token_type_id",
        "special_tokens_map_file",
        "stride",
        "tokenizer_file",
        "transformers_version",
        "truncation_strategy",
        "use_fast",
        "vocab_file",
    }
)
_ADDED_PIECE = "the added piece "
_PLAIN = ("single_word", "lstrip", "rstrip", "normalized")
_CURE = "put the files of one tokenizer there, as published; only BERT's WordPiece is supported"


@dataclass(frozen=True)
class TokenizerSettings:
    """What BERT's normaliser does to a text; the defaults are those of transformers.

    Attributes
    ----------
    lowercase : bool
    strip_accents : bool or None
        None: where the case is lowered.
    split_chinese : bool
        Whether each CJK ideograph is a word.
    """

    lowercase: bool = True
    strip_accents: bool | None = None
    split_chinese: bool = True


def tokenizer_files(vocabulary_file: Path) -> list[Path]:
    """Return the files beside the vocabulary that are read where they are there."""
    return [vocabulary_file.with_name(name) for name in (CONFIG, SPECIAL_NAMES, ADDED, WHOLE)]


def read_settings(vocabulary_file: Path, vocabulary: Sequence[str]) -> TokenizerSettings:
    """Read the settings beside a vocabulary.

    Parameters
    ----------
    vocabulary_file : Path
        ``vocab.txt``; without settings beside it the tokenizer has transformers' defaults.
    vocabulary : sequence of str
        Pieces in id order.

    Raises
    ------
    BuildError
        ``text-model.invalid`` naming the file and the key that is unknown, not implemented or contradicts
        the vocabulary.
    """
    config, names, added = (
        _read_object(vocabulary_file.with_name(name)) for name in (CONFIG, SPECIAL_NAMES, ADDED)
    )
    for artefact, content in ((CONFIG, config), (SPECIAL_NAMES, names)):
        for key, value in content.items():
            _require_known(artefact, key, value, vocabulary)
    for piece, number in added.items():
        _require_special(ADDED, piece, str(number), vocabulary)
    return TokenizerSettings(
        lowercase=_setting(config, "do_lower_case"),
        strip_accents=_setting(config, "strip_accents"),
        split_chinese=_setting(config, "tokenize_chinese_chars"),
    )


def require_published(vocabulary_file: Path, ours: Tokenizer) -> None:
    """Refuse a ``tokenizer.json`` beside the vocabulary that would give other ids than ours.

    Parameters
    ----------
    vocabulary_file : Path
    ours : Tokenizer
        Without truncation and padding.

    Raises
    ------
    BuildError
        ``text-model.invalid`` naming the part that differs.
    """
    path = vocabulary_file.with_name(WHOLE)
    if not path.is_file():
        return
    try:
        theirs = _facts(Tokenizer.from_str(path.read_text(encoding="utf-8")))
    except BaseException as error:  # the library raises bare Exception, and BaseException where it panics
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        what = f"it cannot be read ({type(error).__name__})"
        raise _invalid(WHOLE, what, "a file of the tokenizers library") from error
    own = _facts(ours)
    for fact in {**own, **theirs}:
        unsaid = fact.startswith(_ADDED_PIECE) and fact not in theirs  # transformers adds it by its name
        if theirs.get(fact) != own.get(fact) and not unsaid:
            raise _invalid(
                WHOLE,
                f"{fact[:80]!r} contradicts vocab.txt and {CONFIG}",
                json.dumps(own.get(fact))[:200],
                json.dumps(theirs.get(fact))[:200],
            )


def _facts(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what the ids of a text depend on, the settings before the vocabulary."""
    tokenizer.no_truncation()  # families set lengths
    tokenizer.no_padding()
    content = json.loads(tokenizer.to_str())
    facts: dict[str, Any] = {}
    for part in ("normalizer", "pre_tokenizer", "model"):
        facts.update({f"{part}.{key}": value for key, value in (content[part] or {}).items()})
    accents = facts.pop("normalizer.strip_accents", None)
    facts["normalizer.strip_accents"] = facts.get("normalizer.lowercase") if accents is None else accents
    facts.update({f"{_ADDED_PIECE}{token['content']}": token for token in content["added_tokens"]})
    facts["what is put around a text"] = tokenizer.encode("a").ids
    vocabulary = facts.pop("model.vocab", None)
    entries = vocabulary.items() if isinstance(vocabulary, dict) else ()
    facts.update({f"the id of {piece}": number for piece, number in entries})
    return facts


def _read_object(path: Path) -> dict[str, Any]:
    """Return a JSON object, empty where there is no file."""
    return read_object(path, code="text-model.invalid", cure=_CURE) if path.is_file() else {}


def _require_known(artefact: str, key: str, value: object, vocabulary: Sequence[str]) -> None:
    if key in _IDLE or (artefact == CONFIG and key in _SETTINGS):
        return
    if key in SPECIAL:
        piece = _plain_piece(value)
        if piece != SPECIAL[key]:
            raise _invalid(artefact, f"another {key}", f"{SPECIAL[key]}, as it stands", repr(value)[:80])
    elif key == "added_tokens_decoder" and isinstance(value, dict):
        for number, token in value.items():
            _require_special(artefact, _plain_piece(token), number, vocabulary)
    elif key not in _ONLY:
        raise _invalid(
            artefact, f"the key {key[:80]!r} is not known here, and could change the ids", "no such key"
        )
    elif value not in _ONLY[key]:
        expected = " or ".join(repr(each) for each in _ONLY[key])
        raise _invalid(artefact, f"another {key} than is implemented", expected, repr(value)[:80])


def _plain_piece(token: object) -> object:
    """Return the text of a token, written as text or with its flags; None for one that is found otherwise."""
    if not isinstance(token, dict):
        return token
    return None if any(token.get(flag) for flag in _PLAIN) else token.get("content")


def _require_special(artefact: str, piece: object, number: str, vocabulary: Sequence[str]) -> None:
    line = next((str(place) for place, known in enumerate(vocabulary) if known == piece), None)
    if piece not in SPECIAL.values() or number != line:
        raise _invalid(
            artefact,
            "it adds a token that is no special one of vocab.txt, or is found in texts in another way",
            f"only {', '.join(SPECIAL.values())}, with their ids there",
            f"{str(piece)[:40]!r} with id {number[:20]!r}",
        )


def _setting(config: Mapping[str, Any], key: str) -> Any:
    allowed = _SETTINGS[key]
    value = config.get(key, allowed[0])
    if not any(value is each for each in allowed):  # 1 equals True
        expected = " or ".join(json.dumps(each) for each in allowed)
        raise _invalid(CONFIG, f"{key} cannot be used", expected, repr(value)[:80])
    return value


def _invalid(artefact: str, message: str, expected: str, found: str | None = None) -> BuildError:
    return BuildError(
        "text-model.invalid", message, artefact=artefact, expected=expected, found=found, cure=_CURE
    )
