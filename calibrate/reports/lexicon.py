"""The lexicon: phrases of findings, regions and rules, and one pass that finds them all in a sentence.

The data are the JSON files in ``data/``, each with its source and licence; the schema is the classes here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple, TypeVar

import msgspec

from promptray.calibrate.reports.words import sentences

_T = TypeVar("_T")
_HERE = None  # key of a node's own meanings among the words that may follow


class _Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the data files' structures: unknown fields are refused."""


class Observation(_Struct, frozen=True):
    """A finding that is said in two places of a clause: ``the heart is mildly enlarged``."""

    of: list[str]
    """What is observed."""
    is_: list[str] = msgspec.field(name="is")
    """What makes it this finding."""
    normal: list[str]
    """What says that it is not there."""


class FindingTerms(_Struct, frozen=True):
    """One finding and how reports say it."""

    key: str
    """The same key as in the prompt packs, where they have the finding."""
    region: str
    """Where it is when the report names no place; may be empty."""
    phrases: list[str]
    parents: list[str]
    """More general findings that are there when this one is."""
    observations: list[Observation]


class _Findings(_Struct, frozen=True):
    source: str
    licence: str
    findings: list[FindingTerms]


class RegionTerms(_Struct, frozen=True):
    """One region and its names."""

    name: str
    phrases: list[str]


class _Regions(_Struct, frozen=True):
    source: str
    licence: str
    sides: dict[str, list[str]]
    regions: list[RegionTerms]


class Rules(_Struct, frozen=True):
    """Trigger phrases: ``before`` ones act on what follows in a clause, ``after`` ones on what precedes."""

    source: str
    licence: str
    negation_before: list[str]
    negation_after: list[str]
    uncertain_before: list[str]
    uncertain_after: list[str]
    alternative: list[str]
    """Between two findings: either of them."""
    neutral: list[str]
    """Look like a trigger and are none: ``no change``."""
    breaks: list[str]
    """End the reach of every trigger."""
    report_sections: list[str]
    skipped_sections: list[str]
    """Headings of what does not describe this image: history, comparison."""
    irregular: dict[str, str]


class Sense(NamedTuple):
    """One meaning of a phrase: the ``kind`` of list, ``value`` its entry there, ``term`` the phrase."""

    kind: str
    value: str
    term: str


class Mention(NamedTuple):
    """A phrase of the lexicon in a sentence, words `start` to `end`, with all its meanings."""

    start: int
    end: int
    senses: tuple[Sense, ...]


@dataclass(frozen=True)
class Lexicon:
    """Findings, rules, and the tree of phrases.

    Attributes
    ----------
    findings : dict of str to FindingTerms
        By key.
    rules : Rules
    """

    findings: dict[str, FindingTerms]
    rules: Rules
    tree: dict[Any, Any]

    def mentions(self, sentence: Sequence[str]) -> list[Mention]:
        """Return the longest phrases of a sentence, from left to right; none overlaps another."""
        found, position, words = [], 0, len(sentence)
        while position < words:
            node: Any = self.tree.get(sentence[position])
            end, senses, next_ = position + 1, None, position + 1
            while node is not None:
                if _HERE in node:
                    senses, next_ = node[_HERE], end
                node = node.get(sentence[end]) if end < words else None
                end += 1
            if senses is not None:
                found.append(Mention(position, next_, tuple(senses)))
            position = next_
        return found


@cache
def lexicon() -> Lexicon:
    """Return the shipped lexicon; read once."""
    findings = _read("findings.json", _Findings).findings
    regions = _read("regions.json", _Regions)
    rules = _read("rules.json", Rules)
    tree: dict[Any, Any] = {}

    def add(kind: str, value: str, phrases: Sequence[str]) -> None:
        for phrase in phrases:
            (words,) = sentences(phrase, rules.irregular)
            node = tree
            for word in words:
                node = node.setdefault(word, {})
            senses = node.setdefault(_HERE, [])
            if not any(sense[:2] == (kind, value) for sense in senses):
                senses.append(Sense(kind, value, phrase))

    for finding in findings:
        add("finding", finding.key, finding.phrases)
        for number, observation in enumerate(finding.observations):
            name = f"{finding.key}/{number}"
            add("of", name, observation.of)
            add("is", name, observation.is_)
            add("normal", name, observation.normal)
    for region in regions.regions:
        add("region", region.name, region.phrases)
    for side, phrases in regions.sides.items():
        add("side", side, phrases)
    for kind in ("negation_before", "negation_after", "uncertain_before", "uncertain_after"):
        add(kind, "", getattr(rules, kind))
    add("alternative", "", rules.alternative)
    add("neutral", "", rules.neutral)
    add("break", "", rules.breaks)
    return Lexicon({finding.key: finding for finding in findings}, rules, tree)


def named_findings(text: str) -> set[str]:
    """Return the findings that a text names as a whole: it is one of their phrases, and nothing more."""
    known = lexicon()
    parts = list(sentences(text, known.rules.irregular))
    if len(parts) != 1:
        return set()
    whole = [each for each in known.mentions(parts[0]) if each.end - each.start == len(parts[0])]
    return {sense.value for each in whole for sense in each.senses if sense.kind == "finding"}


def _read(name: str, kind: type[_T]) -> _T:
    return msgspec.json.decode((files(__package__) / "data" / name).read_bytes(), type=kind)
