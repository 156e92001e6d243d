"""English wordings of findings, made of the lexicon's phrases and of the prompt packs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from promptray.calibrate.reports.lexicon import Mention, lexicon
from promptray.calibrate.reports.words import sentences
from promptray.runtime.packs import pack_names, read_pack

_TEMPLATES = (
    "There is {}.",
    "There are findings of {}.",
    "There is evidence of {}.",
    "Findings consistent with {}.",
    "Findings suspicious for {}.",
    "The image shows {}.",
    "The lungs show {}.",
    "Chest radiograph with {}.",
    "Chest X-ray of a patient with {}.",
    "Signs of {}.",
    "{} is present.",
    "{} is seen.",
    "Possible {}.",
    "{}",
    "There is no {}.",
    "There is no evidence of {}.",
    "No {} is seen.",
    "Chest radiograph without {}.",
    "{} is absent.",
    "no {}",
)
_DEGREES = ("mild", "moderate", "severe", "small", "large", "subtle", "new", "chronic", "acute", "diffuse")
_OTHERS = "a an the this in and known noted film child"  # of no finding, either
#: What the lexicon calls what says that, how surely or where, and not what.
_NO_FINDING = frozenset(
    {"negation_before", "negation_after", "uncertain_before", "uncertain_after", "neutral", "side", "region"}
)
_TRIES = 20  # for each wording: what is made twice counts once


def generated(count: int, seed: int, templates: Sequence[str] = ()) -> dict[str, str]:
    """Return different wordings and their topics: those of packs as published, then phrases in templates.

    The topic is that of the term that a wording was made of, whatever template, degree or place is around it.

    Parameters
    ----------
    count : int
        Most of them; packs are not cut, so that 0 alone gives none.
    seed : int
    templates : sequence of str
        The family's own, which are as likely as all the others together.
    """
    if not count:
        return {}
    rng = np.random.default_rng([seed, 2])
    found = _of_packs()
    terms, places = _terms(), _places()
    for _ in range(_TRIES * count):
        if len(found) >= count:
            break
        name = term = _one(rng, _one(rng, terms))
        if rng.random() < 0.25:
            term = f"{_one(rng, _DEGREES)} {term}"
        if rng.random() < 0.25:
            term = f"{term} in the {_one(rng, places)}"
        chosen = _one(rng, templates if templates and rng.random() < 0.5 else _TEMPLATES)
        found.setdefault(chosen.format(term), topic(name))
    return found


def topic(text: str) -> str:
    """Return which findings a text names, however it says them.

    Those of the lexicon; else those that only packs name; else the words that are left without template,
    degree, place and negation. Topics may be wider than one finding, which hides nothing that was learned.
    """
    if named := _of_lexicon(text):
        return ", ".join(sorted(named))
    words = _bare(text)
    within = [name for name in _other_names() if _contains(words, name)]
    longest = [
        name for name in within if not any(name != other and _contains(other, name) for other in within)
    ]
    return ", ".join(sorted(longest)) or words


def _of_lexicon(text: str) -> set[str]:
    known = lexicon()
    return {
        sense.value
        for words in sentences(text, known.rules.irregular)
        for mention in known.mentions(words)
        for sense in mention.senses
        if sense.kind == "finding"
    }


def _bare(text: str) -> str:
    """Return the words of a text that say what is found; all of them where none does."""
    known, kept = lexicon(), []
    for words in sentences(text, known.rules.irregular):
        around = {place for each in known.mentions(words) if _no_finding(each) for place in _span(each)}
        kept += [
            word for place, word in enumerate(words) if place not in around and word not in _said_around()
        ]
    return " ".join(kept) or " ".join(text.lower().split())


def _no_finding(mention: Mention) -> bool:
    return all(sense.kind in _NO_FINDING for sense in mention.senses)


def _span(mention: Mention) -> range:
    return range(mention.start, mention.end)


def _contains(words: str, name: str) -> bool:
    return f" {name} " in f" {words} "


@cache
def _said_around() -> frozenset[str]:
    """Return the words of templates, degrees and places, in base form, and punctuation."""
    around = [*(each.format("") for each in _TEMPLATES), *_DEGREES, *_places(), _OTHERS]
    known = lexicon().rules.irregular
    return frozenset(",;:()/") | {
        word for text in around for words in sentences(text, known) for word in words
    }


@cache
def _other_names() -> frozenset[str]:
    """Return the bare names of packs' findings that the lexicon does not name."""
    return frozenset(_bare(name) for (name,) in _names_of_packs() if not _of_lexicon(name))


def _of_packs() -> dict[str, str]:
    packs = [read_pack(name) for name in pack_names()]
    return {
        prompt: topic(finding.display)
        for pack in packs
        for finding in pack.findings
        for prompt in finding.prompts
    }


def _terms() -> list[list[str]]:
    """Return the phrases of each finding that are names, and the packs' names of theirs."""
    named = [each.phrases for each in lexicon().findings.values()]
    return [each for each in named if each] + _names_of_packs()


def _names_of_packs() -> list[list[str]]:
    packs = {finding.display for name in pack_names() for finding in read_pack(name).findings}
    return [[name.lower()] for name in sorted(packs)]


def _places() -> list[str]:
    return [
        f"{side} {place}"
        for side in ("left", "right")
        for place in ("lung", "upper lobe", "lower lobe", "lung base", "apex", "hilum", "mid lung", "chest")
    ]


def _one(rng: np.random.Generator, choices: Sequence[str] | Sequence[list[str]]) -> str:
    return choices[int(rng.integers(len(choices)))]  # type: ignore[return-value]
