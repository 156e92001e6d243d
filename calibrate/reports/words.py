"""From the text of a report to sentences of words in their base form."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_WORD = re.compile(r"[a-z]+|[0-9]+(?:\.[0-9]+)?|[.?!,;:()/]")
_REMOVED = re.compile(
    r"\[\*\*[^\[\]\n]{0,200}\*\*\]|\bx-xxxx\b|_{2,}"
)  # what de-identification left of a name or date
_NEW_ITEM = re.compile(r"\n\s*(?:\n|[0-9]{1,2}[.)]\s|[-*•])")
_LONGEST_SENTENCE = 200  # words; what runs on without an end is cut, so that no text takes long
_ENDS = frozenset(".!")
_SHORT = frozenset({"dr", "vs", "approx", "incl", "st"})  # a full stop after these ends no sentence
_KEPT = ("ss", "us", "is", "os")  # mass, thymus, pelvis: their s is no plural

Sentence = list[str]


def sentences(text: str, irregular: Mapping[str, str]) -> Iterator[Sentence]:
    """Yield the sentences of a text as words in lower case and singular, punctuation as words of its own.

    De-identified places (``XXXX``, ``___``, ``[** **]``) become the word ``xxxx``. Numbers of a list are
    dropped; decimal points and a few abbreviations end no sentence; a blank line and a new item of a list do.

    Parameters
    ----------
    text : str
    irregular : mapping of str to str
        Base forms that the rules for plurals do not find.
    """
    lowered = _REMOVED.sub(" xxxx ", _NEW_ITEM.sub(" . ", text.lower()))
    sentence: Sentence = []
    for word in _WORD.findall(lowered):
        if word not in _ENDS:
            sentence.append(base_form(word, irregular))
            if len(sentence) == _LONGEST_SENTENCE:
                yield sentence
                sentence = []
        elif word != "." or not (sentence and sentence[-1] in _SHORT):
            if sentence and not (len(sentence) == 1 and sentence[0].isdigit()):
                yield sentence
            sentence = []
    if sentence:
        yield sentence


def base_form(word: str, irregular: Mapping[str, str]) -> str:
    """Return the singular of a lower-case word.

    >>> [base_form(word, {"hila": "hilum"}) for word in ("opacities", "masses", "effusions", "hila")]
    ['opacity', 'mass', 'effusion', 'hilum']
    """
    known = irregular.get(word)
    if known is not None:
        return known
    if len(word) < 4 or not word.endswith("s") or word.endswith(_KEPT):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("sses", "xes", "ches")) else word[:-1]
