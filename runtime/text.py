"""From a prompt to token arrays: the family's cleaning rule, then its tokenizer, then the word index.

The rules are named in the bundle (``text.cleaning``) and implemented here, so that a prompt added on an
edge box is treated exactly as one encoded when the bundle was built.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordPiece

from promptray.runtime.bundle.manifest import TextRule
from promptray.runtime.errors import BundleError, PromptError
from promptray.runtime.wording import Wording, require_readable

_NUMBERING = re.compile(r"[0-9]+\.")
_WORD = re.compile(r"\w+")
#: What words begin with: of SentencePiece it looks like an underscore, of byte-level BPE it is a G with a
#: dot, which stands for the space before a word.
_WORD_MARK, _BYTE_MARK = "\u2581", "\u0120"
_LONGEST_PROMPT = 20_000  # characters; far above any context, so a pasted file is refused at once


def clean_carzero(text: str) -> str:
    r"""Clean a prompt as CARZero's original does.

    Sentences are split at full stops and list numbers. Each is lower-cased and reduced to its runs of word
    characters, without non-ASCII characters. A sentence of one word or none is DROPPED, so a bare finding
    name ("Edema") becomes the empty string.

    Source: specification of the published implementation (GLoRIA's report cleaning), rule by rule.

    Examples
    --------
    >>> clean_carzero("1. mild Cardiomegaly\n2. No focal consolidation. Edema")
    'mild cardiomegaly no focal consolidation'
    """
    sentences = []
    for part in _NUMBERING.split(text.replace("\n", " ")):
        for sentence in part.split("."):
            words = _WORD.findall(sentence.lower())
            if len(words) > 1:
                kept = (word.encode("ascii", "ignore").decode("ascii") for word in words)
                sentences.append(" ".join(word for word in kept if word))
    return " ".join(sentence for sentence in sentences if sentence)


def clean_open_clip(text: str) -> str:
    r"""Clean a prompt as open_clip's tokenizers do: mend the encoding, resolve HTML, one space between words.

    Source: open_clip 3.3.0, ``basic_clean`` and ``whitespace_clean`` (MIT); the mending is ftfy's.

    Examples
    --------
    >>> clean_open_clip("Kerley&amp;nbsp;B  lines,\t“bat’s-wing”")
    'Kerley B lines, "bat\'s-wing"'
    """
    import ftfy  # only who adds a prompt to a model of this kind waits for it

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())


def clean_clip(text: str) -> str:
    """Clean a prompt as CLIP's own tokenizer does: as open_clip's do, then in lower case.

    Source: openai/CLIP, ``simple_tokenizer.py`` (MIT); open_clip 3.3.0's ``SimpleTokenizer`` is the same.

    Examples
    --------
    >>> clean_clip("No  Pleural&nbsp;Effusion")
    'no pleural effusion'
    """
    return clean_open_clip(text).lower()


def clean_asg(text: str) -> str:
    r"""Clean a prompt as ASG's reports are: its sentences, one a line, joined by spaces, in lower case.

    Source: specification of the published implementation, whose data hold reports in lower case.

    Examples
    --------
    >>> clean_asg("Mild edema.\n\n  No pleural effusion.")
    'mild edema. no pleural effusion.'
    """
    return " ".join(text.lower().split())


def clean_white_space(text: str) -> str:
    r"""Leave a prompt to the tokenizer, but for its white space, by which a tokenizer of words only splits.

    Examples
    --------
    >>> clean_white_space(" Pleural\n effusion")
    'Pleural effusion'
    """
    return " ".join(text.split())


_CLEANING: dict[str, Callable[[str], str]] = {
    "carzero-sentences": clean_carzero,
    "open-clip": clean_open_clip,
    "clip": clean_clip,
    "asg-report": clean_asg,
    "white-space": clean_white_space,
}
#: What people do not expect of a rule, for the refusal of a prompt that it leaves nothing of.
_DROPS: dict[str, str] = {"carzero-sentences": ", which drops sentences of one word"}


@dataclass(frozen=True)
class EncodedPrompt:
    """One prompt ready for the text graph.

    Attributes
    ----------
    wording : Wording
        What is left after cleaning, and how much of it reaches the model.
    arrays : dict of str to array
        ``input_ids`` int64 (1, tokens), unpadded; ``word_matrix`` float32 (1, words, tokens): 1 where a token
        is added to a row. Each token starts a row but one that goes on with a word: of WordPiece a "##"
        piece, of a BPE with an end-of-word suffix a piece after one without it, of SentencePiece a piece
        without U+2581 before it, of a byte-level BPE one without U+0120.
    cleaning : str
        The rule that it was cleaned by.
    """

    wording: Wording
    arrays: dict[str, NDArray[Any]]
    cleaning: str


@dataclass(frozen=True)
class EncodedFinding:
    """One finding as a model takes it: its wordings, ready for the text graph, or the name of its class.

    Attributes
    ----------
    prompts, negative_prompts : tuple of EncodedPrompt
        Empty for a model without text.
    class_name : str or None
        What a classifier's weights call it.
    """

    prompts: tuple[EncodedPrompt, ...] = ()
    negative_prompts: tuple[EncodedPrompt, ...] = ()
    class_name: str | None = None


class TextEncoder:
    """Encode prompts by a bundle's text rule. Thread-safe.

    Parameters
    ----------
    rule : TextRule
        Cleaning rule and context length.
    tokenizer : bytes
        Content of ``tokenizer.json``. It must add its special tokens itself, before or after a text.

    Raises
    ------
    BundleError
        ``bundle.format`` when the tokenizer cannot be read, adds no special token or so many that the context
        has no room for a text, or searches by regular expressions: a bundle from elsewhere could hold one
        that takes endless time.
    """

    def __init__(self, rule: TextRule, tokenizer: bytes) -> None:
        self._cleaning = rule.cleaning
        self._context = rule.context
        self._name = rule.tokenizer
        self._tokenizer = self._guarded(lambda: Tokenizer.from_buffer(tokenizer), "cannot be read")
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        content = self._guarded(self._tokenizer.to_str, "cannot be written")
        if '{"Regex":' in content:
            raise self._refusal(
                "searches by regular expressions, which may take endless time",
                expected="parts that are built into the tokenizers library",
            )
        self._special = self._guarded(
            lambda: self._tokenizer.num_special_tokens_to_add(False), "cannot tell its special tokens"
        )
        if not 0 < self._special < rule.context:
            raise self._refusal(
                "does not fit the text rule",
                expected=f"1 to {rule.context - 1} special tokens that its post_processor adds to a text, "
                f"for a context of {rule.context} tokens",
                found=str(self._special),
            )
        mark = _WORD_MARK if f'"{_WORD_MARK}"' in content else None
        if isinstance(self._tokenizer.model, BPE) and '"type":"ByteLevel"' in content:
            mark = _BYTE_MARK
        self._begins_word = _words_of(self._tokenizer, mark)

    def clean(self, prompt: str) -> str:
        """Return what the model's cleaning rule leaves of a prompt."""
        return _CLEANING[self._cleaning](prompt)

    def encode(self, prompt: str) -> EncodedPrompt:
        """Clean and tokenise one prompt.

        Raises
        ------
        PromptError
            ``prompt.invalid`` for anything but readable text of a sane length.
        BundleError
            ``bundle.format`` where the tokenizer fails.
        """
        if not isinstance(prompt, str) or len(prompt) > _LONGEST_PROMPT:
            found = f"{len(prompt)} characters" if isinstance(prompt, str) else type(prompt).__name__
            raise PromptError(
                "prompt.invalid",
                "a prompt must be text",
                expected=f"str of at most {_LONGEST_PROMPT} characters",
                found=found,
            )
        require_readable(prompt)
        cleaned = self.clean(prompt)
        encoding = self._guarded(lambda: self._tokenizer.encode(cleaned), "cannot encode a prompt")
        before, after = self._around(encoding.special_tokens_mask)
        ids, pieces = encoding.ids, encoding.tokens
        end = len(ids) - after
        cut = min(end, self._context - after)  # of a long text, the closing tokens are kept
        begins = [True] * before + self._begins_word(pieces[before:cut]) + [True] * after
        row_of_token = np.cumsum(begins) - 1
        rows = int(row_of_token[-1]) + 1
        word_matrix = (np.arange(rows)[:, None] == row_of_token[None, :]).astype(np.float32)
        words = rows - before - after
        return EncodedPrompt(
            wording=Wording(text=prompt, cleaned=cleaned, words=words, truncated=cut < end),
            arrays={
                "input_ids": np.array([ids[:cut] + ids[end:]], np.int64),
                "word_matrix": word_matrix[None],
            },
            cleaning=self._cleaning,
        )

    def _around(self, special: Sequence[int]) -> tuple[int, int]:
        """Return how many special tokens the tokenizer put before the text and after it."""
        before = next((place for place, added in enumerate(special) if not added), len(special))
        after = len(special) - before - special[before:].count(0)
        if before + after != self._special or any(special[before : len(special) - after]):
            raise self._refusal(
                "puts special tokens into a text",
                expected=f"{self._special} before and after it",
                found=f"{sum(special)}, of which {before} before it",
            )
        return before, after

    def _guarded(self, call: Callable[[], Any], fault: str) -> Any:
        """Return `call()`; the library raises bare Exception, and BaseException where its code panics."""
        try:
            return call()
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise self._refusal(fault) from None

    def _refusal(self, fault: str, *, expected: str | None = None, found: str | None = None) -> BundleError:
        return BundleError(
            "bundle.format",
            f"the tokenizer {fault}",
            artefact=self._name,
            expected=expected,
            found=found,
            cure="build the bundle again, with a tokenizer that this runtime takes",
        )

    def encode_finding(self, prompts: Sequence[str], negative_prompts: Sequence[str] = ()) -> EncodedFinding:
        """Clean and tokenise all wordings of a finding (see :meth:`encode`)."""
        return EncodedFinding(
            tuple(self.encode(prompt) for prompt in prompts),
            tuple(self.encode(prompt) for prompt in negative_prompts),
        )


def require_text(key: str, finding: EncodedFinding) -> None:
    """Refuse a finding of which a wording has no word that reaches the model.

    Raises
    ------
    PromptError
        ``prompt.empty``.
    """
    for prompt in (*finding.prompts, *finding.negative_prompts):
        if not prompt.wording.words:
            raise PromptError(
                "prompt.empty",
                f"nothing is left of the prompt after this model's text cleaning ({prompt.cleaning}"
                f"{_DROPS.get(prompt.cleaning, '')}), so it would score the same as every other such prompt",
                artefact=key,
                cure="write a sentence, for example 'There is pneumonia.', or set allow_empty to score it "
                "anyway",
            )


def _words_of(tokenizer: Tokenizer, mark: str | None) -> Callable[[Sequence[str]], list[bool]]:
    """Return what says of each piece of a text whether a word begins with it; the first always does.

    Parameters
    ----------
    tokenizer : Tokenizer
    mark : str or None
        What the first piece of a word begins with, of a tokenizer that has such a mark.
    """
    word_end: str | None = getattr(tokenizer.model, "end_of_word_suffix", None)  # of a BPE
    word_piece = isinstance(tokenizer.model, WordPiece)

    def begins(before: str, piece: str) -> bool:
        if word_piece:
            return not piece.startswith("##")
        if word_end:
            return before.endswith(word_end)
        return mark is None or piece.startswith(mark)

    return lambda pieces: [True, *map(begins, pieces, pieces[1:])] if pieces else []
