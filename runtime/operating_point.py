"""A decision threshold of a finding, and what it keeps on patients that it was not chosen on."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from promptray.runtime.bundle.fields import Key, Sha256

Rule = Literal["sensitivity-first", "specificity-first"]
Rate = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1)]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the structures: immutable, keyword-only, closed."""


class Share(_Struct, frozen=True):
    """A share of held-out images, with its Clopper-Pearson interval: of the threshold as it stands."""

    value: Rate
    low: Rate
    high: Rate
    images: Count
    patients: Count
    """What the images are worth as independent ones: sample size of the interval."""

    def __post_init__(self) -> None:
        """Refuse an interval that does not hold its value."""
        if not self.low <= self.value <= self.high:
            raise ValueError("an interval holds its value")


class OperatingPoint(_Struct, frozen=True):
    """A threshold, and what it keeps on patients that it was not chosen on."""

    finding: Key
    bundle: Sha256
    """The only bundle that it holds for."""
    rule: Rule
    target: Rate
    threshold: float
    """Flag a logit of at least this."""
    low: float
    high: float
    """Of the threshold, over draws of patients."""
    sensitivity: Share
    specificity: Share
    confidence: Rate
    folds: Count
    draws: Count
    seed: int
    date: Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]

    def __post_init__(self) -> None:
        """Refuse what is no number: nothing would ever be flagged, or everything."""
        if not all(map(math.isfinite, (self.threshold, self.low, self.high))):
            raise ValueError("a threshold is a finite number")
