"""What a run against peers writes: a document whose schema is these classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta

from benchmarks.result_file import Commit, Date, Struct

_RESAMPLES = 10_000
#: A peer has the same scores, to be compared by its time; another precision has others.
Kind = Literal["promptray", "peer", "other precision", "with texts"]


class Interval(Struct, frozen=True, kw_only=True):
    """A median over rounds, with its quartiles and its 95 % bootstrap interval."""

    median: float
    q1: float
    q3: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.q1:.2f}-{self.q3:.2f}) [{self.low:.2f}, {self.high:.2f}]"


class Row(Struct, frozen=True, kw_only=True):
    """One contestant; one that could not run says why."""

    contestant: str
    kind: Kind
    version: str | None = None
    milliseconds: Interval | None = None
    ratio: Interval | None = None
    """Its time over that of PromptRay's best backend, round by round: above 1, PromptRay is faster."""
    score_error: float | None = None
    """Largest absolute difference of a score to PromptRay's."""
    not_run: str | None = None


class Comparison(Struct, frozen=True, kw_only=True):
    """Contestants that took turns on one question."""

    title: str
    prompts: int
    rounds: Annotated[int, Meta(ge=2)]
    score_spread: float
    """Standard deviation of the scores over the prompts: what the tolerance is to be seen beside."""
    score_tolerance: float
    rows: Annotated[list[Row], Meta(min_length=1)]


class Overhead(Struct, frozen=True, kw_only=True):
    """Time from tensor to scores, less that of the engine within the same call."""

    model: str
    prompts: int
    rounds: Annotated[int, Meta(ge=2)]
    engine: Interval
    """Milliseconds in the sessions of image side and head."""
    scorer: Interval
    overhead: Interval
    """Milliseconds, the difference of each call."""


class HeadShare(Struct, frozen=True, kw_only=True):
    """Time of the head as a share of that of the image side, call by call."""

    prompts: int
    rounds: Annotated[int, Meta(ge=2)]
    image: Interval
    head: Interval
    share: Interval


class Target(Struct, frozen=True, kw_only=True):
    """A target of the design, and whether this run meets it."""

    what: str
    wanted: str
    found: str
    met: bool


class PeersResult(Struct, frozen=True, kw_only=True):
    """All of a result file."""

    schema: Literal["promptray-peers"] = "promptray-peers"
    schema_version: Literal[1] = 1
    commit: Commit
    date: Date
    machine: dict[str, Any]
    threads: Annotated[int, Meta(ge=1)]
    towers: Literal["published", "thin", "small"]
    """Sizes of the models, whose weights are random."""
    comparisons: Sequence[Comparison] = ()
    overheads: Sequence[Overhead] = ()
    head_shares: Sequence[HeadShare] = ()
    targets: Sequence[Target] = ()


def interval(values: Sequence[float]) -> Interval:
    """Return the median of paired rounds, its quartiles and its 95 % percentile-bootstrap interval."""
    taken = np.asarray(values, np.float64)
    picks = np.random.default_rng(0).integers(0, len(taken), (_RESAMPLES, len(taken)))
    low, high = np.quantile(np.median(taken[picks], axis=1), [0.025, 0.975])
    q1, median, q3 = np.quantile(taken, [0.25, 0.5, 0.75])
    return Interval(median=float(median), q1=float(q1), q3=float(q3), low=float(low), high=float(high))


def ratio(times: Sequence[float], base: Sequence[float]) -> Interval:
    """Return the interval of per-round ratios."""
    return interval([time / other for time, other in zip(times, base, strict=True)])


def best_of(times: Mapping[str, Sequence[float]]) -> str:
    """Return the contestant with the least median."""
    return min(times, key=lambda name: float(np.median(times[name])))
