"""CLIP's byte-pair vocabulary as published, and the tokenizer made of it; needs no torch.

A vocabulary is a list of merges. Its pieces, in id order: the 256 bytes (each as one printable character),
the same at the end of a word, one piece for each merge, and the two special ones. CLIP reads the first 48,894
merges of ``bpe_simple_vocab_16e6.txt.gz``; on model hubs the same are ``merges.txt``, with their ids in
``vocab.json``.

Source: openai/CLIP, ``simple_tokenizer.py`` (MIT).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, WhitespaceSplit
from tokenizers.pre_tokenizers import Sequence as Successive
from tokenizers.processors import TemplateProcessing

from promptray.runtime.errors import BuildError

PUBLISHED = "bpe_simple_vocab_16e6.txt.gz"
_HUB = ("merges.txt", "vocab.json")
_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_LARGEST = 64 * 2**20
#: Tokens of the published vocabulary, and the hash of its merges joined by line feeds.
_PUBLISHED_TOKENS = 49408
_PUBLISHED_SHA256 = "f61f2adf497e6f5357c347aeb4646fabe82f341e946de5bdec5d2858e41bef4a"


@dataclass(frozen=True)
class ClipVocabulary:
    """Merges in the order of their rank.

    Attributes
    ----------
    merges : tuple of (str, str)
    """

    merges: tuple[tuple[str, str], ...]

    def ids(self) -> dict[str, int]:
        """Return the id of every piece."""
        alphabet = _bytes()
        pieces = [*alphabet, *(f"{byte}{_WORD_END}" for byte in alphabet)]
        pieces += ["".join(pair) for pair in self.merges]
        return {piece: number for number, piece in enumerate([*pieces, _START, _END])}

    def tokenizer_json(self, *, context: int) -> bytes:
        """Return the tokenizer as ``tokenizer.json`` (see the ``tokenizers`` library).

        The original's one regular expression (contractions, letters, single digits, other marks) is put
        together from what the library has built in, since a bundle's tokenizer may not bring an expression of
        its own. A special piece that is written out in a prompt is text here: CLIP would end a prompt there.
        """
        ids = self.ids()
        tokenizer = Tokenizer(BPE(ids, list(self.merges), end_of_word_suffix=_WORD_END))
        tokenizer.pre_tokenizer = Successive(
            [WhitespaceSplit(), Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
        )
        tokenizer.post_processor = TemplateProcessing(
            single=f"{_START} $A {_END}", special_tokens=[(_START, ids[_START]), (_END, ids[_END])]
        )
        tokenizer.enable_truncation(context)
        return (tokenizer.to_str(pretty=True) + "\n").encode()


def clip_files(checkpoint: Path, text_model: Path | None) -> list[Path]:
    """Return the files that `read_clip_vocabulary` reads."""
    folder = text_model or checkpoint.parent
    published = folder / PUBLISHED
    hub = [folder / name for name in _HUB]
    return hub if not published.exists() and hub[0].exists() else [published]


def read_clip_vocabulary(checkpoint: Path, text_model: Path | None, tokens: int) -> ClipVocabulary:
    """Read the vocabulary beside a checkpoint, or in the text model's folder.

    Parameters
    ----------
    checkpoint : Path
        Its folder is looked into where there is no text model.
    text_model : Path or None
    tokens : int
        Rows of the checkpoint's token embedding: so many pieces must the vocabulary have.

    Raises
    ------
    BuildError
        ``text-model.invalid``, naming the file, when it is missing, damaged or another model's.
    """
    files = clip_files(checkpoint, text_model)
    artefact = files[0].name
    count = tokens - 2 * 256 - 2
    try:
        text = _read(files[0])
        stated = json.loads(_read(files[1])) if len(files) > 1 else None
    except (OSError, EOFError, ValueError, zlib.error, RecursionError) as error:
        raise _invalid(
            files[0].parent.name,
            f"the vocabulary cannot be read ({type(error).__name__})",
            f"{PUBLISHED}, or {' and '.join(_HUB)}",
            "none" if not files[0].exists() else "another kind of file",
        ) from error
    # The first line states the version. Not splitlines: it also cuts at characters that a piece may be.
    lines = text.removesuffix("\n").split("\n")[1:]
    if len(lines) < count or count < 0:
        raise _invalid(
            artefact, "the vocabulary is not the checkpoint's", f"{count} merges or more", str(len(lines))
        )
    vocabulary = ClipVocabulary(tuple(_merges(list(islice(lines, count)), artefact)))
    found = hashlib.sha256("\n".join(map(" ".join, vocabulary.merges)).encode()).hexdigest()
    if tokens == _PUBLISHED_TOKENS and found != _PUBLISHED_SHA256:
        raise _invalid(
            artefact, "these are not the merges that CLIP was published with", _PUBLISHED_SHA256, found
        )
    if stated is not None and stated != vocabulary.ids():
        raise _invalid(_HUB[1], f"the ids do not follow from {artefact}", "both files of one model", "others")
    return vocabulary


def _read(path: Path) -> str:
    if not path.is_file():  # a pipe would be waited for
        raise FileNotFoundError
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError("too large for a vocabulary")
    return content.decode("utf-8")


def _merges(lines: Sequence[str], artefact: str) -> list[tuple[str, str]]:
    """Return the pairs, each of pieces that are known by then and to a new one."""
    alphabet = _bytes()
    known = {*alphabet, *(f"{byte}{_WORD_END}" for byte in alphabet)}
    merges = []
    for number, line in enumerate(lines, start=2):
        pair = line.split(" ")
        made = "".join(pair)
        if len(pair) != 2 or not known.issuperset(pair) or made in known:
            raise _invalid(
                f"{artefact}, line {number}",
                "no merge",
                "two pieces that earlier lines make, and a new one together",
                repr(line)[:60],
            )
        known.add(made)
        merges.append((pair[0], pair[1]))
    return merges


def _bytes() -> list[str]:
    """Return the character of each byte, in the order of the vocabulary: printable ones first."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = 256 - len(printable)
    return [chr(number) for number in (*printable, *range(256, 256 + others))]


def _invalid(artefact: str, message: str, expected: str, found: str) -> BuildError:
    return BuildError(
        "text-model.invalid",
        message,
        artefact=artefact,
        expected=expected,
        found=found,
        cure=f"put the vocabulary published with the checkpoint beside it: {PUBLISHED} of CLIP",
    )
