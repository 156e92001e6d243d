"""English wordings of findings, made of the lexicon's phrases and of the prompt packs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptray.calibrate.reports.lexicon import lexicon
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
_TRIES = 20  # for each wording: what is made twice counts once


def generated(count: int, seed: int, templates: Sequence[str] = ()) -> list[str]:
    """Return different wordings: those of the packs as published, then phrases in templates.

    Parameters
    ----------
    count : int
        Most of them; packs are not cut, so that 0 alone gives none.
    seed : int
    templates : sequence of str
        The family's own, which are as likely as all the others together.
    """
    if not count:
        return []
    rng = np.random.default_rng([seed, 2])
    found = dict.fromkeys(_of_packs())
    terms, places = _terms(), _places()
    for _ in range(_TRIES * count):
        if len(found) >= count:
            break
        term = _one(rng, _one(rng, terms))
        if rng.random() < 0.25:
            term = f"{_one(rng, _DEGREES)} {term}"
        if rng.random() < 0.25:
            term = f"{term} in the {_one(rng, places)}"
        chosen = _one(rng, templates if templates and rng.random() < 0.5 else _TEMPLATES)
        found[chosen.format(term)] = None
    return list(found)


def topic(text: str) -> str:
    """Return which findings a text names, however it says them; a text that names none is its own topic."""
    known = lexicon()
    named = {
        sense.value
        for words in sentences(text, known.rules.irregular)
        for mention in known.mentions(words)
        for sense in mention.senses
        if sense.kind == "finding"
    }
    return ", ".join(sorted(named)) or " ".join(text.lower().split())


def _of_packs() -> list[str]:
    packs = [read_pack(name) for name in pack_names()]
    return [prompt for pack in packs for finding in pack.findings for prompt in finding.prompts]


def _terms() -> list[list[str]]:
    """Return the phrases of each finding that are names, and the packs' names of theirs."""
    named = [each.phrases for each in lexicon().findings.values()]
    packs = {finding.display for name in pack_names() for finding in read_pack(name).findings}
    return [each for each in named if each] + [[name.lower()] for name in sorted(packs)]


def _places() -> list[str]:
    return [
        f"{side} {place}"
        for side in ("left", "right")
        for place in ("lung", "upper lobe", "lower lobe", "lung base", "apex", "hilum", "mid lung", "chest")
    ]


def _one(rng: np.random.Generator, choices: Sequence[str] | Sequence[list[str]]) -> str:
    return choices[int(rng.integers(len(choices)))]  # type: ignore[return-value]
