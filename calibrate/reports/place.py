"""Where a finding is: the regions named beside it, with their side."""

from __future__ import annotations

from promptray.calibrate.reports.clause import Clause, Marked

_BEFORE = 3  # words between a place and the finding it stands before: "left lower lobe patchy opacity"
_AFTER = (
    10  # words between a finding and its place: "opacity is identified in the far periphery of the left base"
)
_BESIDE = 2  # words behind a finding that need no preposition: "calcified granuloma, left base"
_NEXT = 3  # words between places of a list: "in the right apex and the left base"
_SIDE = 2  # words between a side and its place
_PREPOSITIONS = frozenset(
    "in at within of along over overlying involving throughout near on to about from".split()
)
_JOINS = frozenset({"and", "or", ",", "/"})


def places(clause: Clause, start: int, end: int) -> list[str]:
    """Return the places that a clause names for a finding at words `start` to `end`, each as side and region.

    A region behind the finding needs a preposition between them, unless it follows at once; one before it
    needs none.

    Examples
    --------
    ``patchy opacity in the right apex and left base`` gives ``right lung apex`` and ``left lung base``.
    """
    regions = [each for each in clause.of_kind("region") if each.end <= start or each.start >= end]
    chosen = _behind(clause, regions, end) or _ahead(clause, regions, start)
    own_side = side_of(clause, start, end)
    sides = [side_of(clause, region.start, region.end) or own_side for region in chosen]
    named = (f"{side} {region.value}".strip() for side, region in zip(sides, chosen, strict=True))
    return list(dict.fromkeys(named))


def side_of(clause: Clause, start: int, end: int) -> str:
    """Return the side said in, just before or just behind some words, or nothing."""
    sides = clause.of_kind("side")
    inside = next((each.value for each in sides if start <= each.start and each.end <= end), None)
    before = next((each.value for each in reversed(sides) if 0 <= start - each.end <= _SIDE), None)
    behind = next((each.value for each in sides if 0 <= each.start - end <= _SIDE), None)
    return inside or before or behind or ""


def _behind(clause: Clause, regions: list[Marked], end: int) -> list[Marked]:
    chosen: list[Marked] = []
    for region in regions:
        if region.start < end:
            continue
        last = chosen[-1].end if chosen else end
        between = clause.words[last : region.start]
        others = (each for each in clause.of_kind("finding") if last <= each.start < region.start)
        if "," in between and any(others):  # it is the other finding's place
            break
        limit, needed = (_NEXT, _JOINS) if chosen else (_AFTER, _PREPOSITIONS)
        at_once = not chosen and len(between) <= _BESIDE
        if len(between) > limit or (needed.isdisjoint(between) and not at_once):
            break
        chosen.append(region)
    return chosen


def _ahead(clause: Clause, regions: list[Marked], start: int) -> list[Marked]:
    chosen: list[Marked] = []
    for region in reversed(regions):
        if region.end > start:
            continue
        first = chosen[-1].start if chosen else start
        between = clause.words[region.end : first]
        if len(between) > (_NEXT if chosen else _BEFORE) or (chosen and _JOINS.isdisjoint(between)):
            break
        chosen.append(region)
    return chosen[::-1]
