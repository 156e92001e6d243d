"""A BERT folder as published on model hubs: ``config.json``, ``vocab.txt`` and the tokenizer's settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from promptray.export.json_file import read_json
from promptray.export.tokenizer_settings import (
    SPECIAL,
    TokenizerSettings,
    read_settings,
    require_published,
    tokenizer_files,
)
from promptray.runtime.errors import BuildError

_UNKNOWN = "[UNK]"
_REQUIRED = ("[PAD]", _UNKNOWN, "[CLS]", "[SEP]")
#: What the exported text side is; another value would load and encode wrongly.
_CONSTANTS: dict[str, object] = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "layer_norm_eps": 1e-12,
}


@dataclass(frozen=True)
class BertFolder:
    """Vocabulary and configuration of a BERT text model.

    Attributes
    ----------
    name : str
        Folder name, for errors.
    vocabulary : tuple of str
        Pieces in id order.
    config : dict
        Content of ``config.json``.
    settings : TokenizerSettings
        What the tokenizer does to a text.
    """

    name: str
    vocabulary: tuple[str, ...]
    config: dict[str, Any]
    settings: TokenizerSettings

    @property
    def heads(self) -> int:
        """Attention heads, which no tensor tells."""
        return int(self.config["num_attention_heads"])

    def require_fit(self, *, width: int, vocabulary: int, layers: int | None) -> None:
        """Refuse a folder that belongs to another text model than the checkpoint's.

        `layers` None: the checkpoint does not tell how many the folder's model has.

        Raises
        ------
        BuildError
            ``text-model.invalid``.
        """
        stated = {
            "hidden_size": (self.config.get("hidden_size"), width),
            "num_hidden_layers": (self.config.get("num_hidden_layers"), layers),
            "number of lines of vocab.txt": (len(self.vocabulary), vocabulary),
        }
        for what, (found, expected) in stated.items():
            if found is not None and expected is not None and found != expected:
                raise self._invalid(f"{what} does not fit the checkpoint", str(expected), str(found))

    def tokenizer(self) -> Tokenizer:
        """Return the WordPiece tokenizer, for texts of any length."""
        ids = {piece: number for number, piece in enumerate(self.vocabulary)}
        tokenizer = Tokenizer(WordPiece(ids, unk_token=_UNKNOWN, max_input_chars_per_word=100))
        tokenizer.normalizer = BertNormalizer(
            lowercase=self.settings.lowercase,
            strip_accents=self.settings.strip_accents,
            handle_chinese_chars=self.settings.split_chinese,
        )
        tokenizer.pre_tokenizer = BertPreTokenizer()
        # The originals take a special piece that is written in a text for the token itself.
        tokenizer.add_special_tokens([piece for piece in SPECIAL.values() if piece in ids])
        tokenizer.post_processor = TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
        )
        return tokenizer

    def tokenizer_json(self, *, context: int) -> bytes:
        """Return the tokenizer as ``tokenizer.json`` (see the ``tokenizers`` library)."""
        tokenizer = self.tokenizer()
        tokenizer.enable_truncation(context)
        return (tokenizer.to_str(pretty=True) + "\n").encode()

    def _invalid(self, what: str, expected: str, found: str) -> BuildError:
        return BuildError(
            "text-model.invalid",
            what,
            artefact=self.name,
            expected=expected,
            found=found,
            cure="point the recipe's text_model to the folder published with the checkpoint",
        )


def bert_files(checkpoint: Path, text_model: Path | None) -> list[Path]:
    """Return the files that `read_bert_folder` reads."""
    if text_model is None:
        return []
    vocabulary = text_model / "vocab.txt"
    return [text_model / "config.json", vocabulary, *tokenizer_files(vocabulary)]


def read_bert_folder(path: Path | None) -> BertFolder:
    """Read ``config.json``, ``vocab.txt`` and the tokenizer's settings beside it, but no weights.

    Raises
    ------
    BuildError
        ``text-model.invalid`` naming what is absent or contradicts the text side.
    """
    if path is None:
        raise BuildError(
            "text-model.invalid",
            "this family needs a text model folder, since the checkpoint holds no vocabulary",
            expected="text_model: FOLDER with config.json and vocab.txt",
            cure="add text_model to the recipe",
        )
    return read_bert(path / "config.json", path / "vocab.txt")


def read_bert(configuration: Path | dict[str, Any], vocabulary_file: Path) -> BertFolder:
    """Read a text model from its files, or from a known configuration and a vocabulary.

    Raises
    ------
    BuildError
        As :func:`read_bert_folder`.
    """
    place = configuration if isinstance(configuration, Path) else vocabulary_file
    files = [each for each in (configuration, vocabulary_file) if isinstance(each, Path)]
    try:
        if not all(file.is_file() for file in files):  # a pipe would be waited for
            raise FileNotFoundError
        config = read_json(configuration) if isinstance(configuration, Path) else configuration
        # Not splitlines: it also cuts at characters such as U+2028, which a piece may be.
        vocabulary = tuple(vocabulary_file.read_text(encoding="utf-8").removesuffix("\n").split("\n"))
    except (OSError, ValueError, RecursionError) as error:
        raise BuildError(
            "text-model.invalid",
            f"the text model folder cannot be read ({type(error).__name__})",
            artefact=place.parent.name,
            expected="config.json and vocab.txt",
            cure="point the recipe's text_model to the folder published with the checkpoint",
        ) from error
    config = config if isinstance(config, dict) else {}
    folder = BertFolder(place.parent.name, vocabulary, config, TokenizerSettings())
    heads = folder.config.get("num_attention_heads")
    if type(heads) is not int or heads < 1:
        raise folder._invalid(
            "config.json states no number of attention heads", "num_attention_heads", repr(heads)
        )
    for piece in _REQUIRED:
        if vocabulary.count(piece) != 1:
            raise folder._invalid(
                "the vocabulary lacks a special piece", piece, f"{vocabulary.count(piece)} of them"
            )
    if len(set(vocabulary)) != len(vocabulary):
        raise folder._invalid("the vocabulary repeats a piece", "unique lines", "duplicates")
    for key, expected in _CONSTANTS.items():
        if key in folder.config and folder.config[key] != expected:
            raise folder._invalid(f"config.json has another {key}", repr(expected), repr(folder.config[key]))
    folder = replace(folder, settings=read_settings(vocabulary_file, vocabulary))
    require_published(vocabulary_file, folder.tokenizer())
    return folder
