"""Prompt alignment: from free diagnostic wording to the one form CARZero was trained with.

Source: CARZero (Lai et al., CVPR 2024): reports were rewritten into sentences ``There is <finding>`` or
``There is no <finding>``, with the place where there is one. Here the sentences are made of the report
triplets, so nothing is invented; what the lexicon does not know stays as written, inside the form.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from promptray.calibrate.reports.clause import Existence
from promptray.calibrate.reports.lexicon import lexicon
from promptray.calibrate.reports.triplets import Triplet, extract

#: The form: one sentence, a finding of at most twelve words, a place of at most eight.
FORM = re.compile(
    r"There is (?:no )?(?!(?:no|there)\b)[A-Za-z][\w()-]*(?: (?!in the |at the |of the )[\w()-]+){0,11}"
    r"(?: (?:in|at|of) the [A-Za-z][\w-]*(?: [\w-]+){0,7})?\.?",
    re.ASCII,  # all that is left of a prompt after CARZero's cleaning
)
_ARTICLE = re.compile(r"^(?:an?|the|some|there (?:is|are))\s+", re.IGNORECASE)


@dataclass(frozen=True)
class Proposal:
    """One sentence in the form.

    Attributes
    ----------
    sentence : str
        ``There is [no] <finding> [in the <region>]``.
    finding : str or None
        Key of the lexicon's finding; None where the words were taken as written.
    existence : {"present", "absent", "uncertain"}
        What the wording says of it. The form has no doubt: an uncertain finding is proposed as present.
    by : {"already", "triplet", "as written", "endpoint"}
        How it was made.
    """

    sentence: str
    finding: str | None
    existence: Existence
    by: Literal["already", "triplet", "as written", "endpoint"]


def align(text: str) -> list[Proposal]:
    """Return sentences in the form for a free wording, one for each finding and place it names.

    Severity and time (mild, stable, new) are left out: the form has no place for them.

    Raises
    ------
    ValueError
        When nothing in the form can be made of it: empty, or unknown words that are more than a short phrase.

    Examples
    --------
    >>> [each.sentence for each in align("mild cardiomegaly without effusion")]
    ['There is cardiomegaly', 'There is no pleural effusion']
    """
    wording = " ".join(text.split())
    if in_form(wording):
        return [Proposal(wording, None, "absent" if " is no " in wording else "present", "already")]
    made = {_sentence(each): each for each in extract(wording)}
    if made:
        return [Proposal(each, by.finding, by.existence, "triplet") for each, by in made.items()]
    written = f"There is {_ARTICLE.sub('', wording.rstrip('.'))}"
    if not in_form(written):
        raise ValueError("neither a finding of the lexicon nor a short phrase")
    return [Proposal(written, None, "present", "as written")]


def in_form(sentence: str) -> bool:
    """Say whether a sentence has the form."""
    return FORM.fullmatch(sentence) is not None


def _sentence(triplet: Triplet) -> str:
    if triplet.existence == "absent":
        return f"There is no {triplet.finding}"
    own = lexicon().findings[triplet.finding].region
    place = "" if triplet.region == own else f" in the {triplet.region}"
    return f"There is {triplet.finding}{place}"
