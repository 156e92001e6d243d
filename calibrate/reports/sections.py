"""The parts of a report that describe its image: findings and impression, not history or comparison."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from promptray.calibrate.reports.lexicon import Rules, lexicon


def described(text: str) -> list[str]:
    r"""Return the parts of a report that say what is seen.

    A heading is a known name and a colon at the start of a line, or anywhere in capitals. What stands before
    the first heading counts as described.

    >>> described("Indication: rule out pneumonia.\nFindings: No effusion. IMPRESSION: Clear lungs.")
    [' No effusion. ', ' Clear lungs.']
    """
    heading, skipped = _headings()
    parts, start, keep = [], 0, True
    for match in heading.finditer(text):
        if keep:
            parts.append(text[start : match.start()])
        start, keep = match.end(), " ".join((match[1] or match[2]).lower().split()) not in skipped
    if keep:
        parts.append(text[start:])
    return [part for part in parts if part.strip()]


@cache
def _headings() -> tuple[re.Pattern[str], frozenset[str]]:
    rules: Rules = lexicon().rules
    names = sorted({*rules.report_sections, *rules.skipped_sections}, key=len, reverse=True)
    any_case, capitals = _one_of(names), _one_of([name.upper() for name in names])
    heading = re.compile(rf"(?m)^[ \t]*((?i:{any_case}))[ \t]*:|\b({capitals})[ \t]*:")
    return heading, frozenset(rules.skipped_sections)


def _one_of(names: Sequence[str]) -> str:
    return "|".join(r"[ \t]+".join(name.split()) for name in names)
