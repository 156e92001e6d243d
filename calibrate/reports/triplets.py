"""Region, finding and existence: what a radiology report says, as triplets.

The triplets are what ASG is supervised with, what CARZero's prompts are made of, and what a report is
compared with a score by. The extractor is a lexicon with rules, not a language model: it is fast, says the
same every time, and what it gets wrong can be read in its data. ``docs/reports.md`` says how well it does and
what it cannot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from promptray.calibrate.reports.clause import Clause, Existence, Marked, clauses
from promptray.calibrate.reports.lexicon import lexicon
from promptray.calibrate.reports.place import places, side_of
from promptray.calibrate.reports.sections import described
from promptray.calibrate.reports.words import sentences

_LONGEST_TEXT = 200_000  # characters; a pasted book is not a report
_OF_BEFORE, _OF_BEHIND, _BESIDE = 10, 4, 3  # words between the two halves of an observation


class Triplet(NamedTuple):
    """One statement of a report.

    Attributes
    ----------
    region : str
        Where, with its side: ``left lung base``; empty when neither report nor lexicon name a place.
    finding : str
        Key of the finding, the same as in the prompt packs where they have it.
    existence : {"present", "absent", "uncertain"}
    term : str
        The phrase of OUR lexicon that matched; never words of the report that are not in it.
    """

    region: str
    finding: str
    existence: Existence
    term: str


def extract(text: str) -> list[Triplet]:
    """Return what a report says, in its order, each statement once.

    History, indication and comparison are left out; de-identified places are words without meaning.

    Parameters
    ----------
    text : str
        The report, with or without headings.

    Raises
    ------
    ValueError
        For more than 200,000 characters.

    Examples
    --------
    >>> extract("No effusion. Opacity in the left base may be atelectasis.")
    [Triplet(region='pleura', finding='pleural effusion', existence='absent', term='effusion'),
     Triplet(region='left lung base', finding='lung opacity', existence='present', term='opacity'),
     Triplet(region='left lung base', finding='atelectasis', existence='uncertain', term='atelectasis')]
    """
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"a report has at most {_LONGEST_TEXT} characters, this has {len(text)}")
    known = lexicon()
    found: dict[Triplet, None] = {}
    for part in described(text):
        for words in sentences(part, known.rules.irregular):
            for clause in clauses(words, known.mentions(words)):
                found.update(dict.fromkeys(_triplets(clause)))
    return list(found)


def summarise(triplets: Iterable[Triplet]) -> dict[str, Existence]:
    """Return one existence for each finding: present outweighs uncertain, and uncertain absent.

    A finding that is there, or may be, makes its more general ones so: a rib fracture is a fracture.
    """
    order: Sequence[Existence] = ("absent", "uncertain", "present")
    strongest: dict[str, Existence] = {}
    for triplet in triplets:
        parents = lexicon().findings[triplet.finding].parents if triplet.existence != "absent" else []
        for key in (triplet.finding, *parents):
            strongest[key] = max(strongest.get(key, "absent"), triplet.existence, key=order.index)
    return strongest


def _triplets(clause: Clause) -> Iterator[Triplet]:
    findings = lexicon().findings
    before: tuple[str, list[str]] = ("", [])
    for mention in clause.of_kind("finding"):
        existence = clause.existence(mention.start, mention.end)
        region = findings[mention.value].region
        named = places(clause, mention.start, mention.end)
        if not named and region == before[0]:  # "opacity in the left base, compatible with atelectasis"
            named = before[1]
        before = (region, named)
        for place in named or [f"{side_of(clause, mention.start, mention.end)} {region}".strip()]:
            yield Triplet(place, mention.value, existence, mention.term)
    for kind in ("is", "normal"):
        for change in clause.of_kind(kind):
            for part in _observed(clause, change):
                yield from _observation(clause, kind, change, part)


def _observation(clause: Clause, kind: str, change: Marked, part: Marked) -> Iterator[Triplet]:
    key = change.value.partition("/")[0]
    existence = clause.existence(change.start, change.end)
    if kind == "normal":
        if existence != "present":  # "not normal" says nothing of this finding
            return
        existence = "absent"
    observed = clause.region_at(part.start, part.end)
    start, end = min(change.start, part.start), max(change.end, part.end)
    named = [] if observed else places(clause, start, end)
    region = observed or lexicon().findings[key].region
    for place in named or [f"{side_of(clause, part.start, part.end)} {region}".strip()]:
        yield Triplet(place, key, existence, f"{part.term} … {change.term}")


def _observed(clause: Clause, change: Marked) -> list[Marked]:
    """Return what a change is said of: the nearest thing it can be said of, and one joined to that."""
    near: list[tuple[int, Marked]] = []
    for part in clause.of_kind("of"):
        before, behind = change.start - part.end, part.start - change.end
        if 0 <= before <= _OF_BEFORE or 0 <= behind <= _OF_BEHIND:
            near.append((max(before, behind), part))
    nearest = min((distance for distance, part in near), default=0)
    return [part for distance, part in near if part.value == change.value and distance <= nearest + _BESIDE]
