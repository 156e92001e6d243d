"""A sentence with its mentions, cut into clauses; the reach of negation and uncertainty is a clause.

The idea is NegEx's (Chapman et al., J Biomed Inform 2001): a trigger acts forwards or backwards until
something ends its reach. Triggers and what ends them are data (``data/rules.json``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from promptray.calibrate.reports.lexicon import Mention, Sense

Existence = Literal["present", "absent", "uncertain"]


class Marked(NamedTuple):
    """One meaning of a mention, at words `start` to `end` of its sentence."""

    start: int
    end: int
    value: str
    term: str


class Clause:
    """The mentions between two breaks of a sentence, by kind.

    Parameters
    ----------
    words : sequence of str
        The whole sentence.
    mentions : sequence of Mention
        Those of this clause, from left to right.
    """

    def __init__(self, words: Sequence[str], mentions: Sequence[Mention]) -> None:
        self.words = words
        self._by_kind: dict[str, list[Marked]] = {}
        for start, end, senses in mentions:
            for sense in senses:
                self._by_kind.setdefault(sense.kind, []).append(_marked(start, end, sense))
        self._alternatives = self._find_alternatives()

    def of_kind(self, kind: str) -> list[Marked]:
        """Return the mentions of a kind, from left to right."""
        return self._by_kind.get(kind, [])

    def region_at(self, start: int, end: int) -> str | None:
        """Return the region that just the words `start` to `end` name, if they name one."""
        return next((each.value for each in self.of_kind("region") if each[:2] == (start, end)), None)

    def existence(self, start: int, end: int) -> Existence:
        """Return what the clause says of a finding at words `start` to `end`.

        Doubt said behind the finding outweighs all (``no effusion seen but not excluded``), then negation,
        then doubt said before it (``no opacity to suggest pneumonia``). Two findings with "or" between them
        are each in doubt.
        """
        if self._after("uncertain_after", end):
            return "uncertain"
        if self._before("negation_before", start) or self._after("negation_after", end):
            return "absent"
        if self._before("uncertain_before", start) or (start, end) in self._alternatives:
            return "uncertain"
        return "present"

    def _before(self, kind: str, start: int) -> bool:
        triggers = self.of_kind(kind)
        return bool(triggers) and triggers[0].end <= start

    def _after(self, kind: str, end: int) -> bool:
        triggers = self.of_kind(kind)
        return bool(triggers) and triggers[-1].start >= end

    def _find_alternatives(self) -> set[tuple[int, int]]:
        """Return the places of the findings with "or" between one and the next."""
        findings = self.of_kind("finding")
        starts = [each.start for each in findings]
        found: set[tuple[int, int]] = set()
        for word in self.of_kind("alternative"):
            next_ = bisect_left(starts, word.start)
            if 0 < next_ < len(findings):
                one, other = findings[next_ - 1], findings[next_]
                if other.start - one.end <= _LONGEST_ALTERNATIVE:
                    found |= {one[:2], other[:2]}
        return found


_LONGEST_ALTERNATIVE = 4  # words between two findings of "atelectasis or early infiltrate"


def clauses(words: Sequence[str], mentions: Sequence[Mention]) -> Iterator[Clause]:
    """Cut a sentence at its breaks."""
    inside: list[Mention] = []
    for mention in mentions:
        if mention.senses[0].kind == "break":
            yield Clause(words, inside)
            inside = []
        else:
            inside.append(mention)
    yield Clause(words, inside)


def _marked(start: int, end: int, sense: Sense) -> Marked:
    return Marked(start, end, sense.value, sense.term)
