"""One consistent state of what a scorer scores: the findings of each head, their banks bound to graphs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.bound_heads import BoundChain, BoundHead, HeadScores, PendingScores
from promptray.runtime.bundle.manifest import Head, TextRule
from promptray.runtime.deadline import Deadline
from promptray.runtime.errors import PromptError
from promptray.runtime.finding_names import ByFinding, FindingName
from promptray.runtime.picture import Notice, notice
from promptray.runtime.prompts import BankEntry, PromptBank
from promptray.runtime.relation import incomplete_groups
from promptray.runtime.result import Score
from promptray.runtime.site_calibration import SiteCalibration
from promptray.runtime.site_prompts import ActiveFinding
from promptray.runtime.wording import Wording

# A tokenizer of words takes punctuation mark by mark.
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, eq=False)
class ActiveHead:
    """A head with the findings that it scores now.

    Attributes
    ----------
    head : Head
    active : tuple of ActiveFinding
        In score order.
    bank : PromptBank
        Their cached prompts.
    bound : BoundHead
        The head's graph with just these prompts.
    """

    head: Head
    active: tuple[ActiveFinding, ...]
    bank: PromptBank
    bound: BoundHead


@dataclass(frozen=True, eq=False)
class HeadAnswer:
    """What one head says of one image.

    Attributes
    ----------
    of : ActiveHead
    logits : float32 array, (findings,)
    maps : float32 array, (findings, grid rows, grid columns), or None
    """

    of: ActiveHead
    logits: NDArray[np.float32]
    maps: NDArray[np.float32] | None

    @property
    def maps_of_findings(self) -> Sequence[NDArray[np.float32] | None]:
        """The map of each finding, None for each where the head gives none."""
        return [None] * len(self.logits) if self.maps is None else list(self.maps)


@dataclass(frozen=True, eq=False)
class ActiveSet:
    """What is scored. Replaced whole, never changed.

    Attributes
    ----------
    heads : tuple of ActiveHead
        In the manifest's order.
    notices : tuple of Notice
        What to know about the prompts.
    site_revision : int or None
        The site's revision these findings come from; None without a site.
    calibrations : mapping of (head, key) to SiteCalibration
        Those of the site that hold for these findings as they are scored here.
    chain : BoundChain or None
        The image side and the heads that have findings, as one call; None where no head has one.
    """

    heads: tuple[ActiveHead, ...]
    notices: tuple[Notice, ...]
    site_revision: int | None
    calibrations: Mapping[tuple[str, str], SiteCalibration] = field(default_factory=dict)
    chain: BoundChain | None = None

    def calibrated(self, item: ActiveFinding, score: Score) -> Score:
        """Return a finding's score with what the site's calibration makes of it, where there is one."""
        found = self.calibrations.get((item.finding.head, item.finding.key))
        return score if found is None else found.applied(score)

    def thresholds_of(self, head: str) -> dict[str, float]:
        """Return the thresholds of a head's findings that have one, by key: flag a logit of at least this."""
        return {
            key: each.point.threshold
            for (own, key), each in self.calibrations.items()
            if own == head and each.point is not None
        }

    @property
    def active(self) -> tuple[ActiveFinding, ...]:
        """All findings, one head after the other."""
        return tuple(item for head in self.heads for item in head.active)

    @property
    def by_name(self) -> ByFinding[ActiveFinding]:
        """All findings by name."""
        return ByFinding((item.finding.head, item.finding.key, item) for item in self.active)

    def of(self, head: str) -> ActiveHead:
        """Return a head that the bundle has."""
        return next(each for each in self.heads if each.head.name == head)

    def find(self, name: FindingName) -> ActiveFinding:
        """Return a finding by name.

        Raises
        ------
        PromptError
            ``prompt.unknown`` or ``prompt.ambiguous``.
        """
        return self.by_name.find(name)

    def submit(self, pixels: Any, limit: Deadline) -> PendingScores:
        """Begin to score network input with every head that has findings.

        Raises
        ------
        ScoringError
            As :meth:`promptray.runtime.backends.Chain.submit`.
        PromptError
            ``prompt.unknown`` where no head has a finding.
        """
        if self.chain is None:
            raise PromptError(
                "prompt.unknown",
                "there is no finding to score",
                cure="add one: scorer.prompts.add(key, prompt), or `promptray prompts BUNDLE add`",
            )
        return self.chain.submit(pixels, limit)

    def answers(self, scores: Sequence[HeadScores]) -> list[HeadAnswer]:
        """Return what the heads say of one image, from the scores of those that have findings."""
        scored = [each for each in self.heads if each.active]
        return [
            HeadAnswer(each, logits[0], None if maps is None else maps[0])
            for each, (logits, maps) in zip(scored, scores, strict=True)
        ]


def prompt_notices(bank: PromptBank, rule: TextRule) -> tuple[Notice, ...]:
    """Say what of the prompts themselves makes a score less than it looks."""
    ordered = rule.order == "read"
    seen = {entry.key: _seen(entry, ordered=ordered) for entry in bank}
    texts = Counter(seen.values())
    checks: dict[str, Callable[[BankEntry], bool]] = {
        "prompt-empty": lambda entry: not all(each.words for each in entry.wordings),
        "prompt-truncated": lambda entry: any(each.truncated for each in entry.wordings),
        "prompt-duplicate": lambda entry: any(seen[entry.key][0]) and texts[seen[entry.key]] > 1,
    }
    found = []
    for code, applies in checks.items():
        keys = [entry.key for entry in bank if applies(entry)]
        if keys:
            found.append(Notice(code, f"{notice(code).message} Findings: {', '.join(keys)}."))
    return tuple(found)


def group_notices(heads: Iterable[ActiveHead]) -> tuple[Notice, ...]:
    """Say which groups of alternatives have no share, because a finding of theirs is not scored."""
    names = [name for each in heads for name in incomplete_groups(each.head, each.bank.keys)]
    code = "group-incomplete"
    return (Notice(code, f"{notice(code).message} Groups: {', '.join(names)}."),) if names else ()


def _seen(entry: BankEntry, *, ordered: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return all that the model sees of a finding: two alike score alike."""
    own = sorted(_read(each, ordered=ordered) for each in entry.prompts)
    return tuple(own), tuple(sorted(_read(each, ordered=ordered) for each in entry.negative_prompts))


def _read(wording: Wording, *, ordered: bool) -> str:
    """Return a wording as the model reads it. What is cut off the end of a long one depends on its order."""
    if ordered or wording.truncated:
        return wording.cleaned
    return " ".join(sorted(_WORD.findall(wording.cleaned)))
